"""Several ducks that share one provider's limits through a real server, in one process and in several."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
from tests_system_rig import HELLO, REQUEST, StartDuck, provider_log

from rubberduck import RubberDuck, telemetry
from rubberduck.actors import shared_limits
from rubberduck.errors import ConfigError, RubberDuckError
from rubberduck.telemetry import names
from supervision.testing import fault

ROOT = Path(__file__).resolve().parents[2]
PER_MINUTE = 40
PATIENCE_S = 5.0
Told = Callable[[], list[Any]]


@pytest.fixture
def told() -> Iterator[Told]:
    """The words of what was told of the store, in order."""
    heard: list[Any] = []
    ids = itertools.count()
    id = f"test-{next(ids)}"
    telemetry.attach(
        id,
        [names.SHARED_LIMITS_LOST, names.SHARED_LIMITS_FOUND],
        lambda event, *rest: heard.append(event[-1]),
        inline=True,
    )
    yield lambda: heard
    telemetry.detach(id)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is there counts as there, however slowly this machine lets it answer."""
    monkeypatch.setattr(shared_limits, "CALL_LIMIT", PATIENCE_S)


@pytest.fixture
def old_server(redis_server: Any) -> Any:
    """A server that has been there for long, so that nothing can count that it has not seen."""
    grow_old(redis_server)
    return redis_server


def grow_old(server: Any) -> None:
    import redis

    with redis.Redis.from_url(server.url) as client:
        client.set("rubberduck:{limits}:born", 1, ex=1000)


@pytest.fixture
def start(start_duck: StartDuck) -> Callable[..., RubberDuck]:
    def begin(server: Any, limits: dict[str, Any] | None = None, **sections: Any) -> RubberDuck:
        mock = {"module": "mock", "responses": [HELLO], "api_keys": ["sk-one"]}
        return start_duck(
            {"mock": mock},
            rate_limits={"mock": limits or {"requests_per_min": PER_MINUTE}},
            shared={"url": server.url, **sections},
            retry={"max_attempts": 1},
        )

    return begin


def answered(duck: RubberDuck, calls: int, timeout: float = 3.0) -> int:
    """Makes so many calls, ten at a time; how many were answered. None waits for longer than its `timeout`."""

    def one(number: int) -> int:
        try:
            duck.complete(REQUEST, timeout=timeout)
        except RubberDuckError:
            return 0
        return 1

    with ThreadPoolExecutor(10) as pool:
        return sum(pool.map(one, range(calls)))


def test_two_ducks_together_send_what_the_limit_allows(start: Any, old_server: Any) -> None:
    ducks = [start(old_server) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        sent = list(pool.map(lambda duck: answered(duck, 35), ducks))
    assert 0.9 * PER_MINUTE <= sum(sent) <= PER_MINUTE
    assert min(sent) > 0
    assert sum(provider_log(duck)[0] for duck in ducks) == sum(sent)


def test_what_one_duck_does_not_need_another_one_gets(start: Any, old_server: Any) -> None:
    idle, busy = start(old_server), start(old_server)
    assert answered(idle, 2) == 2
    assert 0.85 * PER_MINUTE <= answered(busy, 50) <= PER_MINUTE - 2


def test_tokens_and_a_bucket_are_shared_too(start: Any, old_server: Any) -> None:
    limits = {"capacity": 12, "refill_rate": 0.01, "input_tokens_per_min": 100_000}
    ducks = [start(old_server, limits) for _ in range(2)]
    assert 10 <= sum(answered(duck, 12) for duck in ducks) <= 12


def test_without_the_store_each_goes_on_with_its_share_and_it_is_told_once(
    start: Any, old_server: Any, told: Told, eventually: Any
) -> None:
    ducks = [start(old_server) for _ in range(2)]
    assert [answered(duck, 3) for duck in ducks] == [3, 3]
    eventually(lambda: all(meter.nodes == 2 for duck in ducks for meter in duck._office.leases.meters.values()))
    old_server.kill()
    sent = [answered(duck, 30) for duck in ducks]
    assert all(3 < 3 + more <= 0.8 * PER_MINUTE / 2 for more in sent)
    eventually(lambda: told() == ["lost", "lost"])
    old_server.start()
    eventually(lambda: told() == ["lost", "lost", "found", "found"])
    assert sum(sent) + 6 + sum(answered(duck, 10) for duck in ducks) <= 1.05 * PER_MINUTE


def test_a_store_that_hangs_holds_up_nobody(
    start: Any, old_server: Any, told: Told, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    duck = start(old_server)
    assert answered(duck, 2) == 2
    monkeypatch.undo()
    told().clear()
    old_server.stall()
    begun = time.monotonic()
    assert answered(duck, 5, timeout=60.0) == 5
    assert time.monotonic() - begun < 30.0  # 20 ms is what the store has, the rest for what this machine stands still
    eventually(lambda: told() == ["lost"])
    old_server.go_on()
    eventually(lambda: told() == ["lost", "found"])


def test_a_duck_starts_and_answers_while_the_store_is_away(start: Any, redis_server: Any, told: Told) -> None:
    redis_server.kill()
    duck = start(redis_server, nodes=4)
    assert answered(duck, 20) == 0.8 * PER_MINUTE / 4
    assert told() == ["lost"]


@pytest.mark.parametrize("actor", ["shared_limits", "rate_limiter:mock"])
def test_who_asks_the_store_may_die_over_and_over(start: Any, old_server: Any, actor: str) -> None:
    duck = start(old_server, {"requests_per_min": 2000})
    ref, passed = duck.actor(actor), itertools.count(1)

    def strike(_: str) -> None:
        number = next(passed)
        if number % 20 == 0 and number <= 200:  # each may cost a slice, which is a twentieth of the limit
            duck.system.kill(ref)

    with fault("before_handle", strike, path="rate_limiter:mock"):
        assert answered(duck, 300, 60.0) == 300
    assert next(passed) > 200
    assert provider_log(duck)[0] == 300


def test_a_duck_that_stops_is_a_node_no_longer_and_leaves_what_it_had_to_others(start: Any, old_server: Any) -> None:
    import redis

    duck = start(old_server)
    answered(duck, 1)
    with redis.Redis.from_url(old_server.url) as client:
        assert client.zcard("rubberduck:{limits}:nodes") == 1
        assert duck.stop()
        assert client.zcard("rubberduck:{limits}:nodes") == 0
        key = next(key for key in client.keys("*") if b"minute" in key)
        cells = {name: float(value) for name, value in client.hgetall(key).items() if name.startswith(b"c")}
        assert sum(cells.values()) == 1
        assert b"sk-one" not in b"".join(client.keys("*"))


def test_a_wrong_address_of_the_store_is_a_fault_of_the_configuration(start_duck: StartDuck) -> None:
    with pytest.raises(ConfigError, match=r"shared\.url"):
        start_duck(shared={"url": "http://host"})


PROCESS = """
    import json, sys, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from rubberduck import RubberDuck
    from rubberduck.actors import shared_limits
    from rubberduck.errors import RubberDuckError

    shared_limits.CALL_LIMIT = float(sys.argv[2])
    enough = threading.Event()
    with RubberDuck.start(json.loads(sys.argv[1])) as duck:
        print("up", flush=True)
        sys.stdin.readline()

        def calls(_):
            while not enough.is_set():
                try:
                    duck.complete({"model": "any", "messages": [{"role": "user", "content": "Hi"}]}, timeout=0.5)
                    sys.stdout.write("sent\\n")
                    sys.stdout.flush()
                except RubberDuckError:
                    time.sleep(0.01)

        with ThreadPoolExecutor(5) as pool:
            running = [pool.submit(calls, number) for number in range(5)]
            sys.stdin.readline()
            enough.set()
        print(sum(call.result() is None for call in running), "ended", flush=True)
"""


class Node:
    """A process that calls as often as the limit lets it, from "go" on; `sent` counts its answers."""

    def __init__(self, server: Any, ledger: Path, limit: int) -> None:
        self._process = process(server, ledger, limit)
        assert self._line() == "up\n"
        self.sent = 0
        self._reader = threading.Thread(target=self._count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            if self._reader.ident is not None:
                self._reader.join()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return str(self._process.stdout.readline())

    def _count(self) -> None:
        while self._line() == "sent\n":
            self.sent += 1

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        print(word, file=self._process.stdin, flush=True)
        if word == "go":
            self._reader.start()

    def end(self) -> int:
        """Let it come to its end; its exit code."""
        self.say("enough")
        self._reader.join(30)
        return self._process.wait(30)


@pytest.mark.parametrize("store", ["there", "killed"])
def test_two_processes_keep_to_one_limit(old_server: Any, tmp_path: Path, store: str, eventually: Any) -> None:
    limit = 600
    one, other = (Node(old_server, tmp_path / f"{number}.sqlite", limit) for number in range(2))

    def sent() -> int:
        return one.sent + other.sent

    with one, other:
        one.say("go")
        other.say("go")
        if store == "killed":
            eventually(lambda: sent() >= 0.1 * limit, timeout=40)
            old_server.kill()
            eventually(lambda: sent() >= 0.3 * limit, timeout=40)
            old_server.start()
        eventually(lambda: sent() >= (0.9 if store == "there" else 0.4) * limit, timeout=40)
        before = -1
        while before != (before := sent()):
            time.sleep(0.5)  # until there is no room for more
        assert [one.end(), other.end()] == [0, 0]
        assert sent() <= 1.05 * limit


def process(server: Any, ledger: Path, limit: int) -> subprocess.Popen[str]:
    config = {
        "providers": {"mock": {"module": "mock", "responses": [HELLO]}},
        "ledger": {"path": str(ledger)},
        "rate_limits": {"mock": {"requests_per_min": limit}},
        "shared": {"url": server.url, "nodes": 2},
        "retry": {"max_attempts": 1},
    }
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), json.dumps(config), str(PATIENCE_S)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
