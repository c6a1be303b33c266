"""`supervision` alone: only its own folder and Pykka are there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pykka
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import importlib, json, pkgutil, sys, time

before = time.perf_counter()
import supervision as sup
took_ms = (time.perf_counter() - before) * 1000
for each in pkgutil.walk_packages(sup.__path__, "supervision."):
    if not each.name.endswith(("__main__", ".engine_machine")):  # the one is run, the other needs hypothesis
        importlib.import_module(each.name)
modules = [name for name in sup.__all__ if type(getattr(sup, name)) is type(sys)]
assert modules == [], f"a module has taken the place of {modules}"


class Counter(sup.Actor):
    count = 0

    async def on_receive(self, message):
        self.count += message
        return self.count


with sup.System("alone") as system:
    system.supervise(sup.supervisor("mid", sup.ChildSpec("counter", Counter)))
    counter = system.whereis("mid/counter")
    assert counter.ask(1) == 1
    counter.tell("crash")
    assert counter.ask(1) == 1
    assert "counter" in str(system.tree())
    assert system.audit() == []
assert system.unstopped_report() == []

files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({"files": files, "ms": took_ms}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two packages in it and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    for package in (ROOT / "supervision", Path(pykka.__file__).parent):
        (folder / package.name).symlink_to(package, target_is_directory=True)
    [info] = Path(pykka.__file__).parent.parent.glob("pykka-*.dist-info")
    (folder / info.name).symlink_to(info, target_is_directory=True)
    return folder


def run(program: str, site: Path) -> str:
    """What `program` prints in an interpreter that sees the standard library and `site`."""
    done = subprocess.run(
        [sys.executable, "-S", "-B", "-W", "error", "-c", program],
        env={"PYTHONPATH": str(site), "PATH": ""},
        cwd=site,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports_and_a_tree_runs_and_heals_with_nothing_but_pykka_around(site: Path) -> None:
    told = json.loads(run(PROGRAM, site))
    names = {name.partition(".")[0] for name in told["files"]}
    strangers = {name for name in names if name not in sys.stdlib_module_names} - {"supervision", "pykka", "__main__"}
    assert strangers == set()
    assert len([name for name in told["files"] if name.startswith("supervision.")]) > 35
    assert all(told["files"][name].startswith(str(site)) for name in ("supervision", "pykka"))
    print(f"import supervision: {told['ms']:.0f} ms")


def test_what_costs_time_to_import_is_imported_by_who_uses_it(site: Path) -> None:
    """The figure depends on the machine; what it is made of does not."""
    loaded = json.loads(run("import supervision, sys, json; print(json.dumps(sorted(sys.modules)))", site))
    dear = {"hypothesis", "unittest", "importlib.metadata", "multiprocessing", "supervision.testing"}
    assert dear & set(loaded) == set()


def test_a_wrong_pykka_is_told_in_one_sentence(site: Path) -> None:
    told = run(
        """
import pykka
del pykka.Actor._create_actor_inbox
try:
    import supervision
except ImportError as error:
    print(error)
""",
        site,
    )
    assert "there is no pykka.Actor._create_actor_inbox. Install 'pykka>=4.5,<4.6'." in told
