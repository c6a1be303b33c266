"""Commands through the whole supervised tree."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import rubberduck
from rubberduck.cli import main
from rubberduck.cli.surroundings import Surroundings
from rubberduck.providers.local import model as local_model
from rubberduck.storage.sqlite import SqliteLedger

ROOT = Path(rubberduck.__file__).parents[1]
Eventually = Callable[..., object]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home without keys, so that every test begins like a fresh machine."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "RUBBERDUCK_CONFIG", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[tuple[str, list[int]]]:
    """A server that answers each chat request with the next status of a list."""
    statuses: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": {"message": "as told", "type": "told", "code": None}}).encode()
            self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{listener.server_address[1]}/v1", statuses
    listener.shutdown()
    thread.join()
    listener.server_close()


def run(*words: str) -> int:
    return main(list(words), surroundings=Surroundings())


def configured(url: str) -> str:
    Path("own.yaml").write_text(
        f"providers: {{there: {{module: openai, api_key: sk-1, base_url: '{url}', models: [m]}}}}\n"
        "retry: {max_attempts: 1}\n"
    )
    return "own.yaml"


def test_mock_answers_and_the_ledger_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("chat", "--mock", "Hello") == 0
    told = capsys.readouterr()
    assert "Hello" in told.out
    assert "mock/mock" in told.err
    assert run("ledger", "export") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["state"], row["provider"], row["model"]) == ("settled", "mock", "mock")


def test_whole_answer_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("chat", "--mock", "--json", "Hello") == 0
    assert json.loads(capsys.readouterr().out)["provider"] == "mock"


def test_refused_key_is_a_matter_of_configuration(
    server: tuple[str, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, statuses = server
    statuses.append(401)
    code = run("chat", "-c", configured(url), "Hi")
    told = capsys.readouterr()
    assert code in (69, 78), told.err
    assert told.out == ""
    assert "error:" in told.err
    assert "sk-1" not in told.err


def test_nobody_at_the_address_ends_with_69(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        free = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert run("chat", "-c", configured(free), "Hi") == 69
    assert "to do:" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_outage_of_the_demonstration_is_survived(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("demo", "--fast", "--seed", str(seed))
    told = capsys.readouterr().out
    assert code == 0, told
    assert "breaker of alpha: closed -> open" in told
    assert "-> closed" in told
    assert "was restarted by its supervisor" in told
    assert "each answered once" in told


def test_no_time_of_the_demonstration_passes_while_the_disk_is_busy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a write took half a second its calls came too late, and the demonstration said that it had failed."""
    write = SqliteLedger.write

    def slowly(self: SqliteLedger, records: Any) -> list[bool]:
        time.sleep(0.08)
        return write(self, records)

    monkeypatch.setattr(SqliteLedger, "write", slowly)
    code = run("demo", "--fast", "--seed", "2")
    told = capsys.readouterr().out
    assert code == 0, told
    ended_at = float(told.splitlines()[-1].split()[0])
    assert ended_at < 20, told  # 15 s on a quick disk, 40 s if each write made time pass


# --- with the local model


@pytest.fixture
def installed_model() -> None:
    if not local_model.is_available():
        pytest.skip(f"the local model is not installed: {local_model.INSTALL_LINE}")


def apart(*words: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which hears an interrupt also where the tests run in a background."""
    command = [sys.executable, "-m", "rubberduck", *words]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environ, preexec_fn=hear_interrupts)


def hear_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def engines(home: Path) -> list[str]:
    """The engines of whoever has this home; other tests have some, too, and at the same time."""
    listed = subprocess.run(["ps", "axeww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "local/engine.py" in line and f"HOME={home} " in f"{line} "]


@pytest.mark.local_model
@pytest.mark.usefixtures("installed_model")
def test_fresh_machine_gets_a_real_answer(own_home: Path, eventually: Eventually) -> None:
    with apart("chat", "Say hello in five words") as process:
        eventually(lambda: engines(own_home) or process.poll() is not None)
        out, err = process.communicate(timeout=110)
    assert process.returncode == 0, err
    assert "hello" in out.lower()
    assert "local/smollm2" in err
    assert "free" in err
    eventually(lambda: not engines(own_home))


@pytest.mark.local_model
@pytest.mark.usefixtures("installed_model")
def test_interrupt_stops_the_answer_and_the_engine(own_home: Path, eventually: Eventually) -> None:
    words = ("chat", "--max-tokens", "900", "--temperature", "1", "Tell me a very long story about a fox.")
    for _ in range(5):  # the story may be short, and over before this process has its turn
        with apart(*words) as process:
            assert process.stdout
            assert process.stderr
            process.stdout.read(1)
            assert engines(own_home) or process.poll() is not None
            process.send_signal(signal.SIGINT)
            err = process.stderr.read()
            code = process.wait(60)
        assert "Traceback" not in err
        eventually(lambda: not engines(own_home))
        if code != 0:
            break
    assert code == 130, err
