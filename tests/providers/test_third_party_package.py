"""A provider in somebody else's package: installed beside us, and found by its word in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CODE = '''
from rubberduck.providers.mock import Mock

class Pond(Mock):
    """Answers as the mock does, in its own name."""
    word = "pond"
'''
ENTRY_POINTS = """\
[rubberduck.providers]
pond = pond_duck.provider:Pond
mock = pond_duck.provider:Pond
nowhere = pond_duck.missing:Pond
broken = pond_duck.broken:Pond
unspeakable = pond_duck.syntax:Pond
nobody = pond_duck.provider:Nobody
number = pond_duck.provider:__name__
bare = pond_duck
"""
METADATA = "Metadata-Version: 2.1\nName: pond-duck\nVersion: 1.2\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages with one in it, as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "pond_duck").mkdir()
    (folder / "pond_duck-1.2.dist-info").mkdir()
    files = {
        "pond_duck/__init__.py": "",
        "pond_duck/provider.py": CODE,
        "pond_duck/broken.py": "raise RuntimeError('the pond is dry')",
        "pond_duck/syntax.py": "class Pond(",
        "pond_duck-1.2.dist-info/METADATA": METADATA,
        "pond_duck-1.2.dist-info/entry_points.txt": ENTRY_POINTS,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def python(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "HOME": str(site), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environ, cwd=site, capture_output=True, text=True, timeout=110, check=False
    )


def said_by(site: Path, program: str) -> list[str]:
    done = python(site, "-c", program)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_answers_under_its_word_or_its_name_like_a_built_in_one(site: Path) -> None:
    told = said_by(
        site,
        """if True:
        from rubberduck import RubberDuck
        replies = {"responses": ["Quack."]}
        providers = {"pond": replies, "other": {"module": "pond", **replies}, "mock": replies}
        with RubberDuck.start({"providers": providers, "ledger": {"path": ":memory:"}}) as duck:
            for route in "pond/carp", "other/carp", "mock/carp":
                request = {"model": route, "messages": [{"role": "user", "content": "Hi"}]}
                response = duck.complete(request)
                print(response.provider, response.text)
        from rubberduck.providers import resolve
        print(resolve("pond").__module__, resolve("mock").__module__)
        """,
    )
    assert told == ["pond Quack.", "other Quack.", "mock Quack.", "pond_duck.provider rubberduck.providers.mock"]


def test_a_broken_entry_point_says_what_is_broken_and_whose_it_is(site: Path) -> None:
    told = said_by(
        site,
        """if True:
        from rubberduck.errors import ConfigError
        from rubberduck.providers import resolve
        for name in "nowhere", "broken", "unspeakable", "nobody", "bare", "number", "pnd", "zzz":
            try:
                resolve(name)
            except ConfigError as error:
                print(error)
        """,
    )
    assert len(told) == 8
    assert told[0].startswith("provider module 'nowhere' (pond-duck 1.2, pond_duck.missing:Pond) cannot be loaded")
    assert told[1].endswith("cannot be loaded: RuntimeError: the pond is dry")
    assert "SyntaxError" in told[2]
    assert "has no attribute 'Nobody'" in told[3]
    assert "cannot be loaded" in told[4]
    assert "is no provider" in told[5]
    assert "did you mean 'pond'?" in told[6]
    assert "pond" in told[7]
    assert "known: " in told[7]


def test_the_command_line_shows_it(site: Path) -> None:
    (site / "rubberduck.yaml").write_text("providers: {pond: {models: [carp]}, other: {module: pond}}\n")
    offers = json.loads(python(site, "-m", "rubberduck", "models", "-c", "rubberduck.yaml", "--json").stdout)
    assert [offer["name"] for offer in offers] == ["pond/carp", "other/NAME"]
    findings = json.loads(python(site, "-m", "rubberduck", "doctor", "-c", "rubberduck.yaml", "--json").stdout)
    found = {finding["detail"]: finding["verdict"] for finding in findings if finding["subject"] == "provider"}
    assert found["pond (pond-duck 1.2, pond_duck.provider:Pond)"] == "ok"
    assert [detail for detail, verdict in found.items() if "the pond is dry" in detail and verdict == "bad"]
    assert not any(detail.startswith("mock") for detail in found)


def test_a_name_that_nobody_brings_needs_a_module(site: Path) -> None:
    told = said_by(
        site,
        """if True:
        from rubberduck import Config
        from rubberduck.errors import ConfigError
        try:
            Config.load({"providers": {"ponds": {}}}, environ={})
        except ConfigError as error:
            print(error)
        """,
    )
    assert "needs `module`" in " ".join(told)
