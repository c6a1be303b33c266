"""What holds for every test: no network but loopback, nothing of the user's own, nothing left running.

With `--strict-skips` a skip counts as a failure, but for want of the recorded answers, and of what $RUBBERDUCK_MAY_LACK
names.
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest

T = TypeVar("T")
Eventually = Callable[..., Any]

CASSETTES = "RUBBERDUCK_CASSETTES"
ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0  # seconds; the machine may be busy with other things, and only a test that fails waits so long
GRACE = PATIENCE  # that an actor or thread told to stop may take
OURS = ("supervision", "duck")  # how the names of our own threads begin

# A shared machine is no stopwatch. In continuous integration the examples are the same each time: a red run is news.
BUSY = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("here", deadline=None, suppress_health_check=BUSY, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, suppress_health_check=BUSY, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


# --- network -----------------------------------------------------------------------------------------------------


class NetworkBlocked(RuntimeError):
    """A test reached for something that is not this machine. No OSError: code must not take it for a bad network."""


blocked: list[str] = []


def is_local_host(host: str | bytes | None) -> bool:
    """Whether the name or address is this machine's, or an address, which needs no look-up, told apart later."""
    if host is None:
        return True
    name = host.decode("idna") if isinstance(host, bytes) else host
    return name.rstrip(".").lower() in ("", "localhost", socket.gethostname().lower()) or is_address(name)


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    if not is_address(host):
        return is_local_host(host)
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def refuse(what: str) -> None:
    blocked.append(what)
    raise NetworkBlocked(f"{what}: tests may use loopback and unix sockets only")


def watch_network(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook sees what C code does too, and survives tests that patch the socket module."""
    if not event.startswith("socket."):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        peer, address = arguments[0], arguments[1]
        inet = peer.family in (socket.AF_INET, socket.AF_INET6)
        if inet and isinstance(address, tuple) and not is_loopback(str(address[0])):
            refuse(f"{event.removeprefix('socket.')} to {address[0]}:{address[1]}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname") and not is_local_host(arguments[0]):
        refuse(f"look-up of {arguments[0]}")


@pytest.fixture(autouse=True)
def only_loopback() -> Iterator[None]:
    """Fails the test whose code was refused the network, even where that code swallowed the refusal."""
    blocked.clear()
    yield
    if blocked:
        pytest.fail(f"network outside this machine: {'; '.join(blocked)}", pytrace=False)


# --- leaks -------------------------------------------------------------------------------------------------------


def live_threads() -> set[threading.Thread]:
    """Those a test must have ended: all that would keep the interpreter alive, and ours even where they would not."""
    return {thread for thread in threading.enumerate() if not thread.daemon or thread.name.startswith(OURS)}


def live_actors() -> set[Any]:
    pykka = sys.modules.get("pykka")
    return set(pykka.ActorRegistry.get_all()) if pykka else set()


@pytest.fixture(autouse=True)
def nothing_left_running(only_loopback: None) -> Iterator[None]:
    """Fails a test that leaves a thread or an actor behind, after a moment's grace for those already stopping."""
    threads, actors = live_threads(), live_actors()
    yield
    deadline = time.monotonic() + GRACE
    while leaks := [*(live_threads() - threads), *(live_actors() - actors)]:
        if time.monotonic() > deadline:
            pytest.fail(f"left running: {', '.join(map(str, leaks))}", pytrace=False)
        time.sleep(0.005)


# --- waiting -----------------------------------------------------------------------------------------------------


@pytest.fixture
def eventually() -> Eventually:
    """`eventually(condition)`: waits until the condition holds and gives what it returned."""

    def wait_until(condition: Callable[[], T], timeout: float = PATIENCE) -> T:
        deadline = time.monotonic() + timeout
        while not (found := condition()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {timeout} s: {condition!r} last gave {found!r}")
            time.sleep(0.002)
        return found

    return wait_until


# --- skips -------------------------------------------------------------------------------------------------------

ALLOWED_SKIP = "cassettes:"  # recorded answers are shared between checkouts, not part of one
MAY_LACK = "RUBBERDUCK_MAY_LACK"  # more such beginnings of reasons, for machines where something cannot be installed


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips", action="store_true", help=f"a skipped test fails, unless its reason begins '{ALLOWED_SKIP}'"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--help"):
        sys.addaudithook(watch_network)
        forget_the_user(config)


def forget_the_user(config: pytest.Config) -> None:
    """No test reads the keys and the configuration of whoever runs it, or writes into their ledger and caches."""
    folder = tempfile.TemporaryDirectory(prefix="rubberduck-tests-")
    config.add_cleanup(folder.cleanup)
    for name in ("CONFIG", "STATE", "DATA", "CACHE"):
        os.environ[f"XDG_{name}_HOME"] = str(Path(folder.name) / name.lower())
    for name in list(os.environ):
        if name == "RUBBERDUCK_CONFIG" or name.startswith(("RUBBERDUCK__", "OPENAI_", "ANTHROPIC_")):
            del os.environ[name]


def reason_to_fail(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Why this skip counts as a failure; None where it does not."""
    if not (report.skipped and config.getoption("--strict-skips")) or hasattr(report, "wasxfail"):
        return None
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    allowed = (ALLOWED_SKIP, *os.environ.get(MAY_LACK, "").split())
    return None if reason.startswith(allowed) else f"skipped, which --strict-skips forbids: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if reason := reason_to_fail(item.config, report):
        report.outcome, report.longrepr = "failed", reason
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if reason := reason_to_fail(collector.config, report):
        report.outcome, report.longrepr = "failed", reason
    return report


@pytest.fixture(scope="session")
def cassettes() -> Path:
    """The folder of answers recorded from real providers: $RUBBERDUCK_CASSETTES, or beside the checkout."""
    folder = Path(os.environ.get(CASSETTES) or ROOT.parent / "shared" / "cassettes")
    if not folder.is_dir():
        pytest.skip(f"{ALLOWED_SKIP} no folder {folder}; set {CASSETTES} to where they are")
    return folder


# --- servers -----------------------------------------------------------------------------------------------------


class RedisServer:
    """A server of the test's own, on a socket in a folder of its own. `url` leads to it."""

    def __init__(self, program: str, folder: str) -> None:
        self._command = [program, "--port", "0", "--unixsocket", f"{folder}/socket", "--dir", folder, "--save", ""]
        self._socket = Path(folder) / "socket"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder}/socket"

    def start(self) -> None:
        """Empty, as after a crash: it keeps nothing on the disk."""
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                pytest.fail(f"{self._command[0]} does not start")
            time.sleep(0.005)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as peer:
            try:
                peer.connect(str(self._socket))
                peer.sendall(b"PING\r\n")
                return peer.recv(7) == b"+PONG\r\n"
            except OSError:
                return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stall(self) -> None:
        """It takes connections and questions, and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A running Redis or Valkey, and the client to it."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server: no such program (Debian, Ubuntu: apt-get install redis-server)")
    pytest.importorskip("redis", reason="redis-server: the package redis is not installed (the extra `redis`)")
    with tempfile.TemporaryDirectory(prefix="duck-") as folder:  # a socket's path must be short
        server = RedisServer(program, folder)
        server.start()
        yield server
        server.kill()
