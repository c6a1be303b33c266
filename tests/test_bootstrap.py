"""`./duck` before anything is installed: what a verb needs, what is there, what is to be done."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(path: Path) -> ModuleType:
    """The script as a module, without running it."""
    spec = importlib.util.spec_from_file_location(f"{path.stem}_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


duck: Any = load(ROOT / "duck.py")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout with three small locks, in place of this one."""
    monkeypatch.setattr(duck, "ROOT", tmp_path)
    monkeypatch.setattr(duck, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(duck, "STAMP", tmp_path / ".venv" / ".duck")
    monkeypatch.setattr(duck.shutil, "which", lambda name: None)
    (tmp_path / "locks").mkdir()
    for name in duck.LOCKS:
        (tmp_path / "locks" / f"{name}.txt").write_text(f"# download: 3 MB in 1 packages\n{name}==1\n")
    return tmp_path


@pytest.fixture
def installer(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    fake = Installer(checkout)
    monkeypatch.setattr(duck, "run_installer", fake)
    return fake


class Installer:
    """Plays venv and pip: records what it was asked and does it to a folder; fails at the step it is told."""

    def __init__(self, checkout: Path) -> None:
        self.steps: list[str] = []
        self.fail_at = 0
        self.failure: BaseException = duck.InstallFailed("no")
        self.site = checkout / ".venv" / "lib" / "python3.11" / "site-packages"

    def __call__(self, command: list[str]) -> None:
        self.steps.append("create" if "venv" in command else Path(command[-1]).stem)
        if len(self.steps) == self.fail_at:
            raise self.failure
        (self.site / "pip").mkdir(parents=True, exist_ok=True)
        (self.site / "hook.pth").write_text("import os")
        duck.venv_python().parent.mkdir(exist_ok=True)
        duck.venv_python().touch()


def chat(*arguments: str, cwd: Path, **environ: str) -> tuple[str, ...]:
    found: tuple[str, ...] = duck.locks_for("chat", arguments, {"HOME": str(cwd / "home"), **environ}, cwd)
    return found


# --- what a verb needs


def test_chat_without_a_key_or_configuration_brings_the_local_model(tmp_path: Path) -> None:
    assert chat("hello", cwd=tmp_path) == ("run", "local")


@pytest.mark.parametrize("key", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"])
def test_chat_with_a_key_downloads_no_model(tmp_path: Path, key: str) -> None:
    assert chat("hello", cwd=tmp_path, **{key: "sk-1"}) == ("run",)


def test_an_empty_key_is_no_key(tmp_path: Path) -> None:
    assert chat("hello", cwd=tmp_path, OPENAI_API_KEY="") == ("run", "local")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--mock", "hi"],
        ["--config", "x.yaml", "hi"],
        ["--config=x.yaml"],
        ["--help"],
        ["--provider", "mock"],
        ["-m", "ollama/x"],
    ],
    ids=" ".join,
)
def test_chat_that_is_told_who_answers_downloads_no_model(tmp_path: Path, arguments: list[str]) -> None:
    assert chat(*arguments, cwd=tmp_path) == ("run",)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--provider", "local"],
        ["--provider=local"],
        ["-p", "local"],
        ["-m", "local/smollm2"],
        ["--model=local/x", "hi"],
    ],
    ids=" ".join,
)
def test_asking_for_the_local_model_outweighs_a_key(tmp_path: Path, arguments: list[str]) -> None:
    assert chat(*arguments, cwd=tmp_path, OPENAI_API_KEY="sk-1") == ("run", "local")


def test_an_option_spoken_of_in_the_question_is_no_option(tmp_path: Path) -> None:
    assert chat("what does --mock do, and --provider mock?", cwd=tmp_path) == ("run", "local")


def test_a_configuration_outweighs_what_else_would_choose_the_local_model(tmp_path: Path) -> None:
    assert chat("--provider", "local", cwd=tmp_path, RUBBERDUCK_CONFIG="any.yaml") == ("run",)


def test_a_configuration_file_is_found_where_the_command_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck.os, "geteuid", lambda: 1000, raising=False)
    assert not duck.is_configured({"HOME": str(tmp_path)}, tmp_path)
    assert duck.is_configured({"RUBBERDUCK_CONFIG": "any"}, tmp_path)
    (tmp_path / "rubberduck.yml").touch()
    assert duck.is_configured({}, tmp_path)
    (tmp_path / "xdg" / "rubberduck").mkdir(parents=True)
    (tmp_path / "xdg" / "rubberduck" / "rubberduck.yaml").touch()
    assert duck.is_configured({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, tmp_path / "elsewhere")
    (tmp_path / ".config" / "rubberduck").mkdir(parents=True)
    (tmp_path / ".config" / "rubberduck" / "rubberduck.toml").touch()
    assert duck.is_configured({"HOME": str(tmp_path), "XDG_CONFIG_HOME": "xdg"}, tmp_path / "elsewhere")


def test_root_takes_no_configuration_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rubberduck.yaml").touch()
    monkeypatch.setattr(duck.os, "geteuid", lambda: 0, raising=False)
    assert not duck.is_configured({"HOME": "/nonexistent"}, tmp_path)


@pytest.mark.parametrize(
    ("verb", "locks"),
    [
        ("test", ("run", "local", "test")),
        ("check", ("run", "test")),
        ("demo", ("run",)),
        ("bench", ("run",)),
        ("doctor", ("run",)),
        ("install", ("run",)),
        ("status", ("run",)),
    ],
)
def test_each_verb_installs_what_it_needs_and_no_more(tmp_path: Path, verb: str, locks: tuple[str, ...]) -> None:
    assert duck.locks_for(verb, [], {}, tmp_path) == locks


def test_the_benchmark_beside_the_official_sdks_brings_them(tmp_path: Path) -> None:
    assert duck.locks_for("bench", ["wire", "--rounds", "3"], {}, tmp_path) == ("run", "test")
    assert duck.locks_for("bench", ["calls"], {}, tmp_path) == ("run",)


def test_install_takes_names_and_refuses_unknown_ones_as_bad_usage(tmp_path: Path) -> None:
    assert duck.locks_for("install", ["test", "local"], {}, tmp_path) == ("run", "local", "test")
    with pytest.raises(duck.Failed, match="'locale'; there are run, local, test") as caught:
        duck.locks_for("install", ["locale"], {}, tmp_path)
    assert caught.value.code == 2


def test_strict_is_asked_for_or_comes_with_continuous_integration() -> None:
    assert duck.is_strict(["-x", "--strict"], {})
    assert duck.is_strict([], {"CI": "true"})
    assert not duck.is_strict([], {"CI": "false"})
    assert not duck.is_strict([], {})


def test_test_hands_its_arguments_to_pytest_but_for_its_own() -> None:
    assert duck.pytest_command(["--strict", "-k", "x"], strict=True) == ["-m", "pytest", "--strict-skips", "-k", "x"]
    assert duck.pytest_command(["tests/core"], strict=False) == ["-m", "pytest", "tests/core"]


def test_the_whole_suite_is_shared_out_among_the_cores() -> None:
    whole = duck.pytest_command(["--strict"], strict=True)
    assert whole[:5] == ["-m", "pytest", "--strict-skips", "-n", "auto"]
    assert whole[-2:] == ["--dist", "loadfile"]


# --- what the environment has


def stamp(python: str = "3.11", platform: str = "linux", **locks: str) -> Any:
    return duck.Stamp(python, platform, locks)


@pytest.mark.parametrize(
    ("found", "wanted", "rebuild", "install"),
    [
        (None, stamp(run="1"), True, ("run",)),
        (stamp(run="1"), stamp(run="1"), False, ()),
        (stamp(run="1", local="1", test="1"), stamp(run="1"), False, ()),
        (stamp(run="1"), stamp(run="1", local="1"), False, ("local",)),
        (stamp(run="1", local="1"), stamp(run="2"), True, ("run",)),
        (stamp(run="1", local="1"), stamp(run="1", local="2"), True, ("run", "local")),
        (stamp(run="1", test="1"), stamp(run="1", local="1"), False, ("local",)),
        (stamp(python="3.11", run="1"), stamp(python="3.12", run="1"), True, ("run",)),
        (stamp(platform="linux", run="1"), stamp(platform="macos", run="1"), True, ("run",)),
    ],
)
def test_what_is_missing_is_added_and_what_is_outdated_is_built_anew(
    found: Any, wanted: Any, rebuild: bool, install: tuple[str, ...]
) -> None:
    assert duck.plan(found, wanted) == duck.Plan(rebuild, install)


def test_a_stamp_is_read_as_it_was_written(tmp_path: Path) -> None:
    stamp(run="1", local="2").write(tmp_path / ".duck")
    assert duck.Stamp.read(tmp_path / ".duck") == stamp(run="1", local="2")
    assert [path.name for path in tmp_path.iterdir()] == [".duck"]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"unfinished": true}', '{"python": "3", "platform": "l"}'])
def test_a_stamp_that_says_nothing_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ".duck").write_text(text)
    assert duck.Stamp.read(tmp_path / ".duck") is None
    assert duck.Stamp.read(tmp_path / "absent") is None


def test_a_lock_is_known_by_every_byte_of_it(checkout: Path) -> None:
    before = duck.LOCKS["run"].digest()
    with duck.LOCKS["run"].path.open("a") as lock:
        lock.write(" ")
    assert duck.LOCKS["run"].digest() != before


def test_every_lock_of_this_checkout_says_how_much_it_downloads() -> None:
    assert all(" MB in " in lock.download() for lock in duck.LOCKS.values())


# --- bringing it there


def test_a_first_run_builds_and_the_next_does_nothing(installer: Installer, capfd: pytest.CaptureFixture[str]) -> None:
    duck.prepare(["run", "local"])
    assert installer.steps == ["create", "run", "local"]
    told = capfd.readouterr()
    assert "3 MB" in told.err
    duck.prepare(["run", "local"])
    duck.prepare(["run"])
    assert installer.steps == ["create", "run", "local"]
    assert told.out + capfd.readouterr().err == ""


def test_a_missing_part_is_added_to_what_is_there(installer: Installer) -> None:
    duck.prepare(["run"])
    duck.prepare(["run", "local"])
    assert installer.steps == ["create", "run", "local"]
    assert set(duck.Stamp.read(duck.STAMP).locks) == {"run", "local"}


def test_a_changed_lock_is_built_anew(installer: Installer, checkout: Path) -> None:
    duck.prepare(["run"])
    (checkout / ".venv" / "leftover").touch()
    (checkout / "locks" / "run.txt").write_text("run==2")
    duck.prepare(["run"])
    assert installer.steps == ["create", "run"] * 2
    assert not (checkout / ".venv" / "leftover").exists()


def test_an_environment_without_its_python_is_built_anew(installer: Installer) -> None:
    duck.prepare(["run"])
    duck.venv_python().unlink()
    duck.prepare(["run"])
    assert installer.steps == ["create", "run"] * 2


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), duck.InstallFailed("no")], ids=["interrupted", "failed"])
def test_a_build_broken_off_at_any_step_is_begun_again(installer: Installer, step: int, failure: BaseException) -> None:
    installer.fail_at, installer.failure = step, failure
    with pytest.raises(type(failure)):
        duck.prepare(["run", "local"])
    assert duck.Stamp.read(duck.STAMP) is None
    installer.steps.clear()
    installer.fail_at = 0
    duck.prepare(["run", "local"])
    assert installer.steps == ["create", "run", "local"]


def test_an_addition_broken_off_is_not_taken_for_done(installer: Installer) -> None:
    duck.prepare(["run"])
    installer.fail_at = 3
    with pytest.raises(duck.InstallFailed):
        duck.prepare(["run", "local"])
    installer.fail_at = 0
    duck.prepare(["run", "local"])
    assert installer.steps == ["create", "run", "local", "create", "run", "local"]


def test_tests_go_on_without_a_local_model_that_does_not_install(installer: Installer) -> None:
    installer.fail_at = 3
    duck.prepare(["run", "local", "test"], optional=["local"])
    assert set(duck.Stamp.read(duck.STAMP).locks) == {"run", "test"}


def test_two_runs_at_once_build_once(installer: Installer) -> None:
    runs = [threading.Thread(target=duck.prepare, args=(["run", "test"],)) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert installer.steps == ["create", "run", "test"]


def test_an_environment_that_someone_else_made_is_left_alone(installer: Installer, checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "precious").touch()
    with pytest.raises(duck.Failed, match="was not made by"):
        duck.prepare(["run"])
    assert (checkout / ".venv" / "precious").exists()
    assert installer.steps == []


def test_the_packages_of_the_checkout_are_found_without_pythonpath(
    installer: Installer, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duck, "ROOT", checkout)
    for name in duck.PACKAGES:
        (checkout / name).mkdir()
    duck.prepare(["run"])
    assert [(installer.site / name).resolve() for name in duck.PACKAGES] == [checkout / name for name in duck.PACKAGES]
    assert not os.path.isabs(os.readlink(installer.site / duck.PACKAGES[0]))


def test_nothing_installed_may_run_whenever_python_starts(installer: Installer) -> None:
    duck.prepare(["run"])
    assert list(installer.site.glob("*.pth")) == []


def test_uv_that_fails_is_followed_by_pip(
    installer: Installer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(duck.shutil, "which", lambda name: "/bin/uv")
    installer.fail_at = 2
    duck.prepare(["run", "test"])
    assert installer.steps == ["create", "run", "create", "run", "test"]
    assert "trying venv and pip" in capfd.readouterr().err


def test_a_python_without_ensurepip_is_told_the_line_to_type(
    installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duck.importlib.util, "find_spec", lambda name: None)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(duck.Failed, match=f"sudo apt-get install -y python{version}-venv") as caught:
        duck.prepare(["run"])
    assert caught.value.code == 1


def test_packages_are_installed_by_hash_and_as_wheels_only() -> None:
    for lock in duck.LOCKS.values():
        options = duck.install_options(lock)
        assert "--require-hashes" in options
        assert options[options.index("--only-binary") + 1] == ":all:"
        assert ("--no-deps" in options) == (lock.name == "local")


def test_an_installer_that_fails_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(duck.InstallFailed, match="ended with 3"):
        duck.run_installer([sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    out, err = capfd.readouterr()
    assert (out, err) == ("", "why\n")  # stdout belongs to the verb


# --- the verbs


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(duck.sys, "argv", ["duck.py", *arguments])
    code: int = duck.run()
    return code


def test_without_a_verb_it_says_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch) == 0
    assert "./duck VERB" in capfd.readouterr().out


def test_any_other_verb_becomes_the_rubberduck_command(installer: Installer, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr(duck, "become", lambda arguments, cwd=None: became.append(list(arguments)) or 7)
    assert run_main(monkeypatch, "status", "--json") == 7
    assert became == [["-m", "rubberduck", "status", "--json"]]


def test_chat_whose_model_cannot_be_had_offers_the_other_ways(
    installer: Installer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(duck, "answers_locally", lambda *_: True)
    installer.fail_at = 3
    assert run_main(monkeypatch, "chat", "hi") == 1
    told = capfd.readouterr().err
    assert all(way in told for way in ("OPENAI_API_KEY", "base_url", "--mock"))


def test_an_interrupt_ends_with_130_and_without_a_traceback(
    installer: Installer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    installer.fail_at, installer.failure = 2, KeyboardInterrupt()
    assert run_main(monkeypatch, "install") == 130
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_or_locked_disk_is_one_line(
    installer: Installer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    installer.fail_at, installer.failure = 1, PermissionError(13, "Permission denied", "/x/.venv")
    assert run_main(monkeypatch, "install") == 1
    assert "Permission denied: /x/.venv" in capfd.readouterr().err


def test_an_unknown_benchmark_is_bad_usage_and_names_the_known(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / "benchmarks").mkdir()
    (checkout / "benchmarks" / "calls.py").touch()
    with pytest.raises(duck.Failed, match="'cells'; there are calls") as caught:
        duck.bench(["cells"])
    assert caught.value.code == 2


def test_what_it_starts_sees_this_checkout_and_nothing_of_the_callers_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("PYTHONHOME", "/somewhere")
    assert duck.environment()["PYTHONPATH"] == str(ROOT)
    assert "PYTHONHOME" not in duck.environment()


# --- the shell that finds a Python


def shell_duck(path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`./duck` of a checkout that holds the script and a duck.py which tells how it was called."""
    return subprocess.run(
        [path, *arguments], env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    script = folder / "duck"
    script.write_text((ROOT / "duck").read_text())
    script.chmod(0o755)
    (folder / "duck.py").write_text("import json, sys; print(json.dumps([sys.executable, *sys.argv[1:]]))")
    return script


def fake_python(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_shell_passes_over_names_that_are_no_working_python(shell: Path, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    fake_python(bin_ / "python3.13", "exit 127")  # what a version manager leaves for a Python that is not chosen
    fake_python(bin_ / "python3.12", f'exec {sys.executable} "$@"')
    done = shell_duck(shell, "a b", "", PATH=f"{bin_}:/usr/bin:/bin")
    assert json.loads(done.stdout)[1:] == ["a b", ""]


def test_the_shell_passes_over_a_python_that_is_too_old(shell: Path, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    fake_python(bin_ / "python3.13", 'case "$*" in *version_info*) exit 1 ;; *) echo "too old" ;; esac')
    fake_python(bin_ / "python3.12", f'exec {sys.executable} "$@"')
    done = shell_duck(shell, "x", PATH=f"{bin_}:/usr/bin:/bin")
    assert json.loads(done.stdout)[1:] == ["x"]


def test_the_shell_finds_its_checkout_through_a_link(shell: Path, tmp_path: Path) -> None:
    (tmp_path / "duck").symlink_to(Path("a checkout") / "duck")
    done = shell_duck(tmp_path / "duck", "x", DUCK_PYTHON=sys.executable)
    assert json.loads(done.stdout)[1:] == ["x"]


def test_the_shell_says_what_is_missing_where_there_is_no_python(shell: Path, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for tool in ("sh", "dirname", "readlink"):
        (bin_ / tool).symlink_to(Path("/bin") / tool if tool == "sh" else Path("/usr/bin") / tool)
    fake_python(bin_ / "python3", "exit 1")
    done = shell_duck(shell, PATH=str(bin_))
    assert (done.returncode, done.stdout) == (1, "")
    assert "no Python 3.11 or newer" in done.stderr
    named = shell_duck(shell, DUCK_PYTHON="/nowhere/python")
    assert (named.returncode, named.stdout) == (1, "")
    assert "DUCK_PYTHON=/nowhere/python" in named.stderr


def test_the_scripts_of_this_checkout_can_be_run() -> None:
    assert os.access(ROOT / "duck", os.X_OK)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# --- the checks


def test_check_runs_all_and_shows_what_failed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    check: Any = load(ROOT / ".ci" / "check.py")
    monkeypatch.setattr(check, "CHECKS", {"good": ["platform"], "bad": ["no_such_tool"]})
    assert check.main([]) == 1
    told = capfd.readouterr().out
    assert "good: passed" in told
    assert "No module named no_such_tool" in told
    assert told.endswith("check: failed: bad\n")
    monkeypatch.setattr(check, "CHECKS", {"good": ["platform"]})
    assert check.main([]) == 0
