"""Pykka's own test suite, run with our actor as its runtime; and the private seams of Pykka that we build on.

The suite is part of Pykka's source distribution. That of the installed version comes by pip, with the hash of our lock,
and is kept in the system's folder for temporary files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pykka
import pytest

import supervision as sup
from supervision import seams
from supervision.pykka_registry import OrderedRefs

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = importlib.metadata.version("pykka")

DIFFERENT_ON_PURPOSE = {
    "test_exception_in_method_reraised_by_future",  # wants no on_failure after a failed ask; here it was a crash
    "test_all_actors_are_stopped_on_base_exception",  # here it ends the one actor that raised it
    "test_base_exception_is_logged",  # the same: there is no end of all actors to be logged
}


# --- getting it --------------------------------------------------------------------------------------------------


def locked_hashes() -> list[str]:
    """The hashes under which our lock knows this version; none where another version was installed by hand."""
    lock = (ROOT / "locks" / "test.txt").read_text(encoding="utf-8")
    found = re.search(rf"^pykka=={re.escape(VERSION)} \\\n((?:    --hash=\S+(?: \\)?\n)+)", lock, re.MULTILINE)
    return re.findall(r"sha256:(\w+)", found[1]) if found else []


def pip_command() -> list[str]:
    """The environment's pip, or the one that comes with Python: an environment made by uv has none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    ensurepip = importlib.util.find_spec("ensurepip")
    folder = Path(str(ensurepip.origin)).parent / "_bundled" if ensurepip else Path("nowhere")
    for wheel in sorted(folder.glob("pip-*.whl")):
        return [sys.executable, f"{wheel}/pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    pytest.skip("there is no pip to get Pykka's test suite with")


def download(folder: Path) -> Path:
    hashes = locked_hashes()
    wanted = folder / "wanted.txt"
    wanted.write_text(f"pykka=={VERSION}" + "".join(f" --hash=sha256:{each}" for each in hashes) + "\n")
    command = [*pip_command(), "download", "--quiet", "--no-deps", "--no-binary", "pykka", "-d", str(folder)]
    # The tests hide the user's folders; pip's own configuration says which index to ask.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "COV", "PYTHONPATH"))}
    done = subprocess.run(
        [*command, "-r", str(wanted)], env=environ, cwd=folder, capture_output=True, text=True, timeout=90, check=False
    )
    found = list(folder.glob("pykka-*.tar.gz"))
    if done.returncode or not found:
        assert "HASHES" not in done.stderr, done.stderr
        pytest.skip(f"pip cannot get the source of Pykka {VERSION}: {done.stderr.strip()[-300:]}")
    return found[0]


def source_archive(folder: Path) -> Path:
    """Pykka's source distribution; from an earlier run, if it is still what our lock says."""
    kept = Path(tempfile.gettempdir()) / f"pykka-{VERSION}-source-{os.environ.get('USER', 'user')}.tar.gz"
    if kept.is_file() and hashlib.sha256(kept.read_bytes()).hexdigest() in locked_hashes():
        return kept
    archive = download(folder)
    try:
        shutil.copy(archive, beside := kept.with_suffix(f".{os.getpid()}"))
        os.replace(beside, kept)
    except OSError:  # somebody else's file has this name: then it is fetched each time
        pass
    return archive


# --- running it --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each test of Pykka's: passed, failed, error or skipped."""
    folder = tmp_path_factory.mktemp("pykka")
    with tarfile.open(source_archive(folder)) as archive:
        archive.extractall(folder, filter="data")
    suite = folder / f"pykka-{VERSION}"
    shutil.rmtree(suite / "src")  # the installed Pykka is what is tested
    shutil.copy(Path(__file__).with_name("pykka_runtime.py"), suite / "tests" / "supervision_runtime.py")
    with (suite / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write("\nfrom tests.supervision_runtime import mocker, runtime  # in place of those above\n")
    (folder / "ours").mkdir()
    (folder / "ours" / "supervision").symlink_to(ROOT / "supervision", target_is_directory=True)
    return run_suite(suite, path=folder / "ours")


def run_suite(suite: Path, path: Path) -> dict[str, str]:
    """Each test that is to fail runs beside the rest: it waits five seconds for what does not come."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    environ |= {"PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    waiting = sorted(DIFFERENT_ON_PURPOSE)
    parts = [f"not ({' or '.join(waiting)})", *waiting]
    running = [start_pytest(suite, part, suite / f"{number}.xml", environ) for number, part in enumerate(parts)]
    said = [process.communicate(timeout=100)[0] for process in running]
    reports = sorted(suite.glob("*.xml"))
    assert len(reports) == len(parts), "\n".join(said)
    outcomes = {name: outcome for report in reports for name, outcome in outcomes_in(report).items()}
    for _ in range(2):  # some measure with a stopwatch, and the machine is shared: once more, by themselves
        failed = {base_name(name) for name, outcome in outcomes.items() if outcome != "passed"} - set(waiting)
        if not 0 < len(failed) < 10:
            break
        again = start_pytest(suite, " or ".join(sorted(failed)), suite / "again.xml", environ)
        print(*said, again.communicate(timeout=100)[0], sep="\n")
        outcomes |= outcomes_in(suite / "again.xml")
    return outcomes


def outcomes_in(report: Path) -> dict[str, str]:
    cases = ET.parse(report).iter("testcase")
    return {f"{case.attrib['classname']}.{case.attrib['name']}": outcome_of(case) for case in cases}


def base_name(name: str) -> str:
    """Without module and parameters."""
    return name.partition("[")[0].rpartition(".")[2]


def start_pytest(suite: Path, part: str, report: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={suite}", f"--junitxml={report}"]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, "-k", part, "tests"],
        cwd=suite,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outcome_of(case: ET.Element) -> str:
    bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    return bad[0] if bad else "passed"


@pytest.mark.timeout(400)  # the fixture's part in it is four runs of pytest beside each other, and maybe some more
def test_pykkas_own_tests_pass_but_for_those_that_differ_on_purpose(outcomes: dict[str, str]) -> None:
    others = {name: outcome for name, outcome in outcomes.items() if outcome != "passed"}
    with_our_runtime = [name for name in outcomes if "[supervision" in name]
    print(f"Pykka {VERSION}: {len(outcomes)} tests, {len(with_our_runtime)} with our runtime, {len(others)} differ")
    assert {base_name(name) for name in others} == DIFFERENT_ON_PURPOSE
    assert sorted(others.values()) == ["failure"] * len(DIFFERENT_ON_PURPOSE)
    assert len(outcomes) > 140
    assert len(with_our_runtime) > 120


# --- what we build on --------------------------------------------------------------------------------------------


def test_the_installed_pykka_has_all_that_we_build_on() -> None:
    assert [*seams.missing(), *seams.unused()] == []


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (pykka.Actor, "_create_actor_inbox"),
        (pykka.Actor, "_create_future"),
        (pykka.Actor, "_start_actor_loop"),
        (pykka.Actor, "_actor_loop"),
        (pykka.ActorRegistry, "_actor_refs"),
        (pykka.messages, "_ActorStop"),
    ],
    ids=lambda value: str(value).rpartition(".")[2],
)
def test_a_pykka_without_it_is_refused_by_name(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(ImportError, match=rf"no pykka\..*{name}.* Install 'pykka>=4.5,<4.6'"):
        seams.check()


def test_a_pykka_that_constructs_its_actors_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: Any) -> None:
        self.actor_inbox = self.actor_urn = self.actor_stopped = None

    monkeypatch.setattr(pykka.Actor, "__init__", init)
    with pytest.raises(ImportError, match=r"__init__ does not use _create_actor_inbox; .* does not use _actor_ref"):
        seams.check()


def test_an_actor_of_ours_meets_its_life_where_pykka_assigns_the_ref() -> None:
    seen: list[Any] = []

    class Watched(sup.Actor):
        def __init__(self) -> None:
            super().__init__()
            seen.extend((self.actor_ref, self.actor_inbox, self.context.epoch))

    ref = Watched.start()
    assert seen == [ref, ref.actor_inbox, 1]
    ref.stop()


def test_the_registry_has_our_container_with_the_list_methods_that_pykka_uses() -> None:
    refs = pykka.ActorRegistry._actor_refs
    assert isinstance(refs, OrderedRefs)
    assert inspect.getsource(pykka.ActorRegistry).count("_actor_refs.") == 2  # append and remove
    assert refs[:] == list(refs)
