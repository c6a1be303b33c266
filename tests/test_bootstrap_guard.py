"""`rubberduck` tells when the `supervision` it would import is not its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

GUARD = Path(__file__).resolve().parent.parent / "rubberduck" / "_guard.py"


def check_with(path: Path) -> subprocess.CompletedProcess[str]:
    """Runs the guard alone in an interpreter that finds packages in `path` only."""
    program = f"import sys; sys.path[:0] = [{str(path)!r}]; exec(open({str(GUARD)!r}).read()); check()"
    return subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)


def package(path: Path, text: str) -> Path:
    (path / "supervision").mkdir()
    (path / "supervision" / "__init__.py").write_text(text)
    return path


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_our_own_package_passes(tmp_path: Path, ending: str) -> None:
    assert check_with(package(tmp_path, f"# rubberduck-llm: supervision{ending}")).returncode == 0


def test_another_package_is_named_with_both_distributions_and_the_cure(tmp_path: Path) -> None:
    done = check_with(package(tmp_path, "print('I ran')\n"))
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    for word in (str(tmp_path / "supervision"), "rubberduck-llm", "Roboflow", "pip uninstall supervision"):
        assert word in done.stderr
    assert "I ran" not in done.stdout


def test_a_bare_folder_of_that_name_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "supervision").mkdir()
    done = check_with(tmp_path)
    assert "Roboflow" in done.stderr
    assert str(tmp_path / "supervision") in done.stderr


def test_no_package_at_all_asks_for_a_new_install(tmp_path: Path) -> None:
    assert "--force-reinstall" in check_with(tmp_path).stderr


def test_a_package_without_source_is_let_through(tmp_path: Path) -> None:
    """A frozen application has no file to read, and its maker chose its modules."""
    program = (
        "import sys, importlib.abc, importlib.machinery as m\n"
        "class Frozen(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        return name == 'supervision' and m.ModuleSpec(name, None, origin='/nowhere/app.zip/x.pyc') or None\n"
        f"sys.meta_path.insert(0, Frozen()); exec(open({str(GUARD)!r}).read()); check()"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
