"""Several ducks that share one provider's limits through a real server, in one process and in several."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests_system_rig import HELLO, REQUEST, StartDuck, provider_log

from rubberduck import RubberDuck, telemetry
from rubberduck.errors import ConfigError, RubberDuckError
from rubberduck.telemetry import names

ROOT = Path(__file__).resolve().parents[2]
PER_MINUTE = 40
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


def answered(duck: RubberDuck, calls: int, timeout: float = 1.0) -> int:
    """Makes so many calls, ten at a time; how many were answered. None may take longer than it has."""

    def one(number: int) -> int:
        begun = time.monotonic()
        try:
            duck.complete(REQUEST, timeout=timeout)
        except RubberDuckError:
            return 0
        finally:
            assert time.monotonic() - begun < timeout + 1
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
    assert told() == ["lost", "lost"]
    old_server.start()
    eventually(lambda: told() == ["lost", "lost", "found", "found"])
    assert sum(sent) + 6 + sum(answered(duck, 10) for duck in ducks) <= 1.05 * PER_MINUTE


def test_a_store_that_hangs_holds_up_nobody(start: Any, old_server: Any, told: Told, eventually: Any) -> None:
    duck = start(old_server)
    assert answered(duck, 2) == 2
    old_server.stall()
    begun = time.monotonic()
    assert answered(duck, 5, timeout=3.0) == 5
    assert time.monotonic() - begun < 1.0
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
    ref, kills = duck.actor(actor), 0
    with ThreadPoolExecutor(1) as pool:
        calls = pool.submit(answered, duck, 300, 10.0)
        while not calls.done() and kills < 20:
            duck.system.kill(ref)
            kills += 1
            time.sleep(0.02)
        assert calls.result() == 300
    assert kills > 3
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
    import json, sys, time
    from concurrent.futures import ThreadPoolExecutor
    from rubberduck import RubberDuck
    from rubberduck.errors import RubberDuckError

    with RubberDuck.start(json.loads(sys.argv[1])) as duck:
        print("up", flush=True)
        sys.stdin.readline()
        until = time.monotonic() + 1.5

        def calls(_):
            sent = 0
            while time.monotonic() < until:
                try:
                    duck.complete({"model": "any", "messages": [{"role": "user", "content": "Hi"}]}, timeout=0.5)
                    sent += 1
                except RubberDuckError:
                    time.sleep(0.01)
            return sent

        with ThreadPoolExecutor(5) as pool:
            print(sum(pool.map(calls, range(5))), flush=True)
"""


@pytest.mark.parametrize("store", ["there", "killed"])
def test_two_processes_keep_to_one_limit(old_server: Any, tmp_path: Path, store: str) -> None:
    limit = 600
    processes = [process(old_server, tmp_path / f"{number}.sqlite", limit) for number in range(2)]
    for each in processes:
        assert each.stdout.readline() == "up\n"
    time.sleep(0.6)  # a beat, so that each knows of the other
    for each in processes:
        each.stdin.write("go\n")
        each.stdin.flush()
    if store == "killed":
        time.sleep(0.2)
        old_server.kill()
        time.sleep(0.6)
        old_server.start()
    told = [each.communicate(timeout=60)[0].strip() for each in processes]
    assert [each.returncode for each in processes] == [0, 0], told
    sent = sum(map(int, told))
    assert sent <= 1.05 * limit
    assert sent >= (0.9 if store == "there" else 0.4) * limit


def process(server: Any, ledger: Path, limit: int) -> subprocess.Popen[str]:
    config = {
        "providers": {"mock": {"module": "mock", "responses": [HELLO]}},
        "ledger": {"path": str(ledger)},
        "rate_limits": {"mock": {"requests_per_min": limit}},
        "shared": {"url": server.url},
        "retry": {"max_attempts": 1},
    }
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), json.dumps(config)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
