"""A pretended engine for tests of the process around it, and the real one where it is installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rubberduck.providers.local import model as local_model
from rubberduck.providers.local.process import EngineSettings


@pytest.fixture
def fake_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], EngineSettings]:
    """Children find the pretended engine; settings for a model whose name says how it shall fare."""
    folder = tmp_path / "engine"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("fake_xllamacpp.py"), folder / "xllamacpp.py")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return lambda story: EngineSettings(model_path=f"/models/{story}.gguf", alias="fake")


@pytest.fixture
def real_engine() -> EngineSettings:
    """Settings for the bundled model on the real engine."""
    if not local_model.is_available():
        pytest.skip(f"the local model is not installed: {local_model.INSTALL_LINE}")
    model = local_model.open_model()
    return EngineSettings(str(model.path), model.name, context_tokens=1024, sampling=local_model.BUNDLED_SAMPLING)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rubberduck"
