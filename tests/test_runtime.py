"""A RubberDuck's life: starting, looking inside, stopping, and what is left when the process ends or is killed."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rubberduck import RubberDuck
from rubberduck.errors import CallInterrupted, ConfigError, LedgerUnavailable, RubberDuckError
from supervision.testing import leak_check

HELLO = {"content": "hello there", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
REQUEST: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
PRICE = {"input": 1, "output": 2}


def config(directory: Path, *responses: Any, **sections: Any) -> dict[str, Any]:
    mock = {"module": "mock", "responses": list(responses or [HELLO])}
    ledger = {"path": str(directory / "ledger.sqlite")}
    return {"providers": {"mock": mock}, "ledger": ledger, "prices": {"mock/any": PRICE}, **sections}


@pytest.fixture
def duck(tmp_path: Path) -> Iterator[RubberDuck]:
    with RubberDuck.start(config(tmp_path)) as duck:
        yield duck


# --- looking inside


def test_every_actor_of_the_tree_has_a_ref_by_its_name(duck: RubberDuck) -> None:
    names = [
        "service", "calls", "request_queue", "cost_tracker", "providers",
        "provider:mock", "rate_limiter:mock", "circuit_breaker:mock",
    ]  # fmt: skip
    drawn = str(duck.tree())
    for name in names:
        assert duck.actor(name).is_alive()
        assert name in drawn
    with pytest.raises(KeyError, match="there is no actor 'ghost'; there are service, calls"):
        duck.actor("ghost")
    with pytest.raises(KeyError, match="there is no provider 'ghost'; there are mock"):
        duck.provider("ghost")


def test_a_ref_survives_the_death_of_its_actor(duck: RubberDuck) -> None:
    service = duck.service
    duck.system.kill(service)
    assert service.ask({"complete": REQUEST}).text == "hello there"


def test_status_tells_of_providers_queue_ledger_and_calls(duck: RubberDuck) -> None:
    duck.complete(REQUEST)
    status = duck.status()
    assert (status.ok, status.calls, status.queue.processed, status.ledger.is_writable) == (True, 0, 1, True)
    mock = status.providers["mock"]
    assert (mock.state, mock.inflight, mock.limiter.granted) == ("closed", 0, 1)


# --- the end


def test_stopping_is_idempotent_from_many_threads(tmp_path: Path) -> None:
    duck = RubberDuck.start(config(tmp_path))
    stopped: list[bool] = []
    threads = [threading.Thread(target=lambda: stopped.append(duck.stop())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stopped == [True] * 4
    assert duck.stop()


def test_after_the_end_everything_says_so(tmp_path: Path) -> None:
    duck = RubberDuck.start(config(tmp_path))
    service = duck.service
    duck.stop()
    for use in (
        lambda: duck.complete(REQUEST),
        lambda: duck.stream(REQUEST),
        lambda: asyncio.run(duck.acomplete(REQUEST)),
        duck.costs,
        duck.status,
        lambda: duck.service,
    ):
        with pytest.raises(CallInterrupted, match="has been stopped") as caught:
            use()
        assert caught.value.spent == 0
    assert not service.is_alive()
    leak_check()


def test_stopping_waits_for_calls_in_flight(tmp_path: Path, eventually: Any) -> None:
    duck = RubberDuck.start(config(tmp_path, {**HELLO, "delay": "200ms"}))
    future = duck.service.ask({"complete": REQUEST}, block=False)
    eventually(lambda: duck.provider("mock").calls)
    assert duck.stop()
    assert future.get(timeout=30).text == "hello there"


def test_stopping_cancels_what_takes_longer_and_tells_it(tmp_path: Path, eventually: Any) -> None:
    duck = RubberDuck.start(config(tmp_path, {**HELLO, "delay": "60s"}))
    future = duck.service.ask({"complete": REQUEST}, block=False)
    eventually(lambda: duck.provider("mock").calls)
    began = time.monotonic()
    assert duck.stop(timeout=0.05)
    assert time.monotonic() - began < 30  # of the minute that the call takes
    with pytest.raises(CallInterrupted) as caught:
        future.get(timeout=30)
    assert caught.value.spent is None
    assert duck.provider("mock").calls[0].cancelled
    assert states(tmp_path) == ["uncertain"]


def test_a_provider_that_cannot_be_closed_keeps_nothing_else_open(tmp_path: Path) -> None:
    duck = RubberDuck.start(config(tmp_path))

    async def broken() -> None:
        raise ValueError("I do not want to")

    duck.provider("mock").aclose = broken  # type: ignore[method-assign]
    assert duck.complete(REQUEST).text == "hello there"
    assert duck.stop()
    leak_check()
    assert states(tmp_path) == ["settled"]


def test_starting_and_stopping_many_times_leaves_nothing(tmp_path: Path) -> None:
    def once() -> None:
        with RubberDuck.start(config(tmp_path)) as duck:
            assert duck.complete(REQUEST).text == "hello there"

    once()
    gc.collect()
    threads, files = threading.active_count(), open_files()
    for _ in range(20):
        once()
    leak_check()
    gc.collect()
    assert threading.active_count() <= threads
    assert open_files() <= files + 2


def test_two_ducks_live_side_by_side_on_one_ledger(tmp_path: Path) -> None:
    with RubberDuck.start(config(tmp_path)) as one, RubberDuck.start(config(tmp_path)) as two:
        assert one.system.name != two.system.name
        for duck in (one, two, one):
            duck.complete(REQUEST)
        one.stop()
        two.complete(REQUEST)
        assert two.costs().by_model["mock", "any"].calls == 4


def states(directory: Path) -> list[str]:
    with sqlite3.connect(directory / "ledger.sqlite") as ledger:
        return [state for (state,) in ledger.execute("select state from attempts order by started_at_us")]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


# --- the ledger


def test_a_ledger_that_cannot_be_opened_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    (tmp_path / "nowhere").touch()  # no directory, so nothing can be made in it, whoever runs this
    with pytest.raises(ConfigError, match="nowhere"):
        RubberDuck.start(config(tmp_path, ledger={"path": str(tmp_path / "nowhere" / "ledger.sqlite")}))
    leak_check()


def test_a_database_as_ledger_is_refused_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ledger\.path"):
        RubberDuck.start(config(tmp_path, ledger={"url": "postgresql://user:password@host/db"}))


class SickLedger:
    """Stands before a ledger and fails while `is_sick`."""

    is_sick = False

    def __init__(self, ledger: Any) -> None:
        self._ledger = ledger

    def write(self, records: Any) -> Any:
        if SickLedger.is_sick:
            raise LedgerUnavailable("the ledger's disk is full; make room")
        return self._ledger.write(records)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


@pytest.fixture
def sick_ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SickLedger]]:
    from rubberduck import wiring

    real = wiring.SqliteLedger
    monkeypatch.setattr(wiring, "SqliteLedger", lambda *where, **how: SickLedger(real(*where, **how)))
    yield SickLedger
    SickLedger.is_sick = False


def test_nothing_is_sent_while_the_ledger_cannot_be_written(tmp_path: Path, sick_ledger: type[SickLedger]) -> None:
    with RubberDuck.start(config(tmp_path)) as duck:
        sick_ledger.is_sick = True
        for call in (duck.complete, duck.stream):
            with pytest.raises(LedgerUnavailable, match="disk is full") as caught:
                call(REQUEST)
            assert (caught.value.spent, caught.value.retryable) == (0, True)
        assert duck.provider("mock").calls == []
        assert not duck.status().ok
        sick_ledger.is_sick = False
        assert duck.complete(REQUEST).text == "hello there"
        status = duck.status()
        assert (status.ok, status.providers["mock"].limiter.in_flight, status.queue.in_process) == (True, 0, 0)
        assert [breaker.permits_out for breaker in status.providers["mock"].breakers.values()] == [0]


def test_what_was_spent_while_the_disk_was_full_is_written_once_there_is_room(
    tmp_path: Path, sick_ledger: type[SickLedger], eventually: Any
) -> None:
    answer_may_come = threading.Event()

    async def wait(seconds: float) -> None:
        while not answer_may_come.is_set():
            await asyncio.sleep(0.001)

    with RubberDuck.start(config(tmp_path, {**HELLO, "delay": "100ms"})) as duck:
        duck.provider("mock").sleep = wait
        future = duck.service.ask({"complete": REQUEST}, block=False)
        eventually(lambda: duck.provider("mock").calls)
        sick_ledger.is_sick = True
        answer_may_come.set()
        assert future.get(timeout=30).text == "hello there"
        assert duck.costs().cost == 0
        sick_ledger.is_sick = False
        eventually(lambda: duck.costs().cost > 0)
    assert states(tmp_path) == ["settled"]


# --- processes that end without stopping, or are killed

PROGRAM = """
import sys
from rubberduck import RubberDuck
duck = RubberDuck.start({config!r})
request = {request!r}
{body}
"""


def run(directory: Path, body: str, *responses: Any) -> subprocess.Popen[str]:
    text = PROGRAM.format(config=config(directory, *responses), request=REQUEST, body=body)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_duck_never_stopped_lets_the_interpreter_end_and_its_ledger_is_whole(tmp_path: Path) -> None:
    process = run(tmp_path, "print([duck.complete(request).text for _ in range(3)])")
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output.strip()) == (0, str(["hello there"] * 3))
    assert states(tmp_path) == ["settled"] * 3


def test_a_call_in_flight_does_not_keep_the_interpreter_alive(tmp_path: Path) -> None:
    body = """
import time
duck.service.ask({"complete": request}, block=False)
while not duck.provider("mock").calls: time.sleep(0.001)
"""
    process = run(tmp_path, body, {**HELLO, "delay": "60s"})
    process.communicate(timeout=60)
    assert process.returncode == 0
    with RubberDuck.start(config(tmp_path)) as duck:
        assert duck.costs().uncertain > 0


def test_a_process_that_was_killed_in_a_call_leaves_the_money_as_uncertain(tmp_path: Path) -> None:
    body = """
import time
print(duck.complete(request).text)
duck.service.ask({"complete": request}, block=False)
while len(duck.provider("mock").calls) < 2: time.sleep(0.001)
print("in flight", flush=True)
time.sleep(60)
"""
    process = run(tmp_path, body, HELLO, {**HELLO, "delay": "60s"})
    assert process.stdout is not None
    assert [process.stdout.readline().strip() for _ in range(2)] == ["hello there", "in flight"]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert states(tmp_path) == ["settled", "intent"]
    with RubberDuck.start(config(tmp_path)) as duck:
        summary = duck.costs()
        assert duck.status().ledger.recovered == 1
    assert (summary.cost > 0, summary.uncertain > 0) == (True, True)
    assert states(tmp_path) == ["settled", "uncertain"]


def test_a_tree_that_gave_up_answers_every_call_with_a_typed_error(tmp_path: Path, eventually: Any) -> None:
    with RubberDuck.start(config(tmp_path, supervision={"max_restarts": 0, "max_seconds": 5})) as duck:
        duck.system.kill(duck.actor("request_queue"))

        def ending() -> str:
            try:
                return duck.complete(REQUEST, timeout=30).text
            except RubberDuckError as error:
                return type(error).__name__

        eventually(lambda: ending() == "CallInterrupted")
        assert ending() == "CallInterrupted"
