"""The engine's process: that it starts, says where it is, and never outlives whom it serves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest

from rubberduck.providers.local import process as local_process
from rubberduck.providers.local.process import Endpoint, EngineFailed, EngineProcess, EngineSettings

Story = Callable[[str], EngineSettings]
PATIENCE_S = 30.0


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(status) and not status.startswith("Z")


def is_soon_gone(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def ask(endpoint: Endpoint, text: str = "hello", key: str | None = None, **fields: object) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": text}]} | fields
    headers = {"Authorization": f"Bearer {key or endpoint.key}"}
    return httpx.post(f"{endpoint.base_url}/chat/completions", json=body, headers=headers, timeout=60, trust_env=False)


def test_started_engine_answers_who_has_its_key(fake_engine: Story) -> None:
    async def story() -> None:
        process = EngineProcess(fake_engine("good"))
        endpoint = await process.start()
        assert (await asyncio.to_thread(ask, endpoint)).status_code == 200
        assert (await asyncio.to_thread(ask, endpoint, key="guess")).status_code == 401
        await process.stop()
        assert process.pid
        assert not is_running(process.pid)

    asyncio.run(story())


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_key_is_in_neither_arguments_nor_environment(fake_engine: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-vendor-key")

    async def story() -> None:
        process = EngineProcess(fake_engine("good"))
        endpoint = await process.start()
        public = b"".join(Path(f"/proc/{process.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        await process.stop()
        assert endpoint.key.encode() not in public
        assert b"sk-a-vendor-key" not in public
        assert endpoint.key not in repr(endpoint)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        ("refuse", r"could not load it: .*Failed to init server.*error loading model: it is broken"),
        ("abort", "SIGABRT"),
    ],
)
def test_engine_that_cannot_load_is_told_with_its_last_words(fake_engine: Story, fate: str, told: str) -> None:
    async def story() -> None:
        process = EngineProcess(fake_engine(fate))
        with pytest.raises(EngineFailed, match=told):
            await process.start()
        assert process.pid
        assert not is_running(process.pid)

    asyncio.run(story())


def test_engine_that_is_not_ready_in_time_is_ended(fake_engine: Story) -> None:
    async def story() -> None:
        process = EngineProcess(fake_engine("slow"))
        with pytest.raises(EngineFailed, match=r"not ready within 0\.3 s"):
            await process.start(timeout=0.3)
        assert process.pid
        assert not is_running(process.pid)

    asyncio.run(story())


def test_cancelled_start_leaves_no_process(fake_engine: Story) -> None:
    async def story() -> None:
        process = EngineProcess(fake_engine("slow"))
        start = asyncio.create_task(process.start())
        while process.pid is None:
            await asyncio.sleep(0.005)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert await process.wait() == -signal.SIGKILL

    asyncio.run(story())


def test_engine_that_logs_without_end_is_not_blocked_by_it(fake_engine: Story) -> None:
    async def story() -> None:
        process = EngineProcess(fake_engine("chatty"))
        endpoint = await process.start()
        assert (await asyncio.to_thread(ask, endpoint)).status_code == 200
        await process.stop()

    asyncio.run(story())


def test_death_of_the_engine_is_noticed_and_named(fake_engine: Story) -> None:
    async def story() -> None:
        process = EngineProcess(fake_engine("good"))
        await process.start()
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        code = await asyncio.wait_for(process.wait(), PATIENCE_S)
        assert "was killed by SIGKILL" in str(process.died(code))
        await process.stop()

    asyncio.run(story())


def test_stop_is_idempotent_and_ends_one_that_ignores_the_request(fake_engine: Story) -> None:
    async def story() -> None:
        process = EngineProcess(fake_engine("good"))
        await process.stop()
        await process.start()
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)  # a stopped process handles no SIGTERM
        await process.stop(grace=0.1)
        await process.stop()
        assert not is_running(process.pid)

    asyncio.run(story())


PARENT = """
import asyncio, json, os, sys, time
from rubberduck.providers.local.process import EngineProcess, EngineSettings
async def main():
    process = EngineProcess(EngineSettings(**json.loads(sys.argv[1])))
    await process.start()
    ids = {"engine": process.pid}
    if sys.argv[2] == "fork":
        ids["fork"] = os.fork() or time.sleep(300)
    print(json.dumps(ids), flush=True)
    await asyncio.sleep(300)
asyncio.run(main())
"""


def killed_parent(settings: EngineSettings, mode: str) -> dict[str, int]:
    """Start an engine in a program, kill the program; the ids that are left to look at."""
    root = Path(local_process.__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(root)])}
    command = [sys.executable, "-c", PARENT, json.dumps(asdict(settings)), mode]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout
    ids: dict[str, int] = json.loads(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    return ids


def test_killed_parent_leaves_no_orphan(fake_engine: Story) -> None:
    assert is_soon_gone(killed_parent(fake_engine("good"), "alone")["engine"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_engine_ends_although_a_fork_of_the_parent_holds_its_lifeline(fake_engine: Story) -> None:
    ids = killed_parent(fake_engine("good"), "fork")
    try:
        assert is_soon_gone(ids["engine"])
        assert is_running(ids["fork"])
    finally:
        os.kill(ids["fork"], signal.SIGKILL)


@pytest.mark.local_model
def test_bundled_model_says_hello_the_same_way_twice(real_engine: EngineSettings) -> None:
    async def story() -> None:
        process = EngineProcess(real_engine)
        endpoint = await process.start()
        answers = [
            (await asyncio.to_thread(ask, endpoint, "Say hello in five words", max_tokens=40)).json() for _ in "12"
        ]
        await process.stop()
        assert "hello" in answers[0]["choices"][0]["message"]["content"].lower()
        assert answers[0]["choices"] == answers[1]["choices"]
        assert answers[0]["usage"]["prompt_tokens"] > 10

    asyncio.run(story())


@pytest.mark.local_model
def test_real_engine_names_what_is_wrong_with_a_cut_file(real_engine: EngineSettings, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with open(real_engine.model_path, "rb") as whole:
        cut.write_bytes(whole.read(4_000_000))

    async def story() -> None:
        with pytest.raises(EngineFailed, match="corrupted or incomplete"):
            await EngineProcess(EngineSettings(str(cut), "cut")).start()

    asyncio.run(story())


@pytest.mark.local_model
def test_killed_parent_leaves_no_real_engine(real_engine: EngineSettings) -> None:
    assert is_soon_gone(killed_parent(real_engine, "alone")["engine"])
