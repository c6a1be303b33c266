"""What must hold for every file that is published."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = sorted((ROOT / "locks").glob("*.txt"))

# The brackets keep this file from being a find of its own.
FORBIDDEN = {
    "a place on somebody's machine": re.compile(r"(?<![\w.~])/(?:[w]ork|[r]oot|[h]ome/\w+|[t]mp/dev)/\w"),
    "a package index, which each user chooses": re.compile(r"pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)"),
    "an index setting": re.compile(r"^\s*--(?:extra-)?index[-]url", re.MULTILINE),
    "a mark of work undone": re.compile(r"\b(?:[T]ODO|[F]IXME)\b"),
}


def published_files() -> list[Path]:
    """Those under version control, or, in an unpacked release, all."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        listed = ""
    names = [Path(name) for name in listed.split("\0") if name]
    if not names:
        everything = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        names = [name for name in everything if not any(is_made(part) for part in name.parts)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def is_made(name: str) -> bool:
    """Whether a file or folder of that name is what tools left, not what is published."""
    return name in (".git", ".venv", "__pycache__", ".hypothesis", ".coverage") or name.endswith("_cache")


def finds(text: str) -> list[str]:
    return [f"{match[0]!r}: {what}" for what, pattern in FORBIDDEN.items() for match in pattern.finditer(text)]


def test_no_file_names_a_place_or_an_index() -> None:
    everything = {path: path.read_text(encoding="utf-8", errors="replace") for path in published_files()}
    assert len(everything) > 20
    assert {str(path.relative_to(ROOT)): found for path, text in everything.items() if (found := finds(text))} == {}


@pytest.mark.parametrize(
    "written_with_gaps",
    ["see /w ork/main/x", "in /h ome/jo/x", "https://pypi .org/simple", "--index -url https://mirror", "# T ODO: more"],
)
def test_what_is_forbidden_is_found(written_with_gaps: str) -> None:
    assert finds(re.sub(r"(?<=\S) (?=ork|ome|\.org|-url|ODO)", "", written_with_gaps)) != []


@pytest.mark.parametrize("text", ["the network/main loop", "~/work/x", "POST /home", "--no-emit-index-url"])
def test_what_is_not_forbidden_is_not(text: str) -> None:
    assert finds(text) == []


@pytest.mark.parametrize("package", PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for name in ("rubberduck", "supervision") for path in (ROOT / name).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["project"]["version"]


def pins(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def test_what_we_ask_for_is_locked_in_a_version_we_accept() -> None:
    dev = [Requirement(text) for text in PROJECT["dependency-groups"]["dev"]]
    core = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    for lock, requirements in (("run", core), ("test", core + dev)):
        versions = pins(ROOT / "locks" / f"{lock}.txt")
        assert [
            str(asked)
            for asked in requirements
            if versions.get(canonicalize_name(asked.name), "0") not in asked.specifier
        ] == [], f"pyproject.toml moved on: ./duck lock ({lock})"


def test_tests_run_on_the_versions_that_users_get() -> None:
    assert pins(ROOT / "locks" / "run.txt").items() <= pins(ROOT / "locks" / "test.txt").items()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_package_has_a_hash_and_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "//" not in text
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(lock)) > 0
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
