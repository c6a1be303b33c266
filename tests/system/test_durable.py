"""Durable jobs: what was accepted is answered, whoever dies in between, and nothing is sent twice unasked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests_system_rig import HELLO, REQUEST, Gated, StartDuck, ask_for, ledger, provider_log

from rubberduck import RubberDuck
from rubberduck.actors import circuit_breaker, deliveries
from rubberduck.actors import jobs as keeper
from rubberduck.core.jobs import JobState
from rubberduck.errors import (
    CallInterrupted,
    ConfigError,
    DeadlineExceeded,
    InvalidRequest,
    LedgerUnavailable,
    ServiceUnavailable,
)
from rubberduck.storage.jobs import SqliteJobs
from rubberduck.testing import FaultServer
from rubberduck.testing.faults import Hold, Ok, Status
from supervision.testing import fault

Eventually = Callable[..., Any]
JOBS = {"lease": "300ms"}
FAST = {"base_delay": "1ms", "max_delay": "1ms"}


class InAnHour(datetime):
    """For whose clock jumps."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.fromtimestamp(time.time() + 3600, UTC)


@pytest.fixture
def duck(start_duck: StartDuck) -> RubberDuck:
    return start_duck(jobs=JOBS, retry=FAST)


def gated(start_duck: StartDuck, **jobs: Any) -> tuple[RubberDuck, Gated]:
    duck = start_duck({"gate": {"module": Gated}}, jobs={**JOBS, **jobs})
    provider = duck.provider("gate")
    assert isinstance(provider, Gated)
    return duck, provider


def test_a_job_is_answered_and_its_answer_can_be_asked_for_more_than_once(duck: RubberDuck) -> None:
    job = duck.submit(REQUEST, tenant="acme", tags={"team": "search"})
    first = duck.result(job, timeout=30)
    assert first.text == "hello there"
    assert duck.result(job) == first
    assert duck.job(job).state is JobState.DONE
    assert provider_log(duck) == ledger(duck) == (1, 5)


def test_a_coroutine_submits_and_waits_too(duck: RubberDuck) -> None:
    async def both() -> str:
        return (await duck.aresult(await duck.asubmit(REQUEST), timeout=30)).text

    assert asyncio.run(both()) == "hello there"


def test_the_same_key_is_the_same_job(duck: RubberDuck) -> None:
    first, second = duck.submit(REQUEST, key="k"), duck.submit(REQUEST, key="k")
    assert first == second
    duck.result(first, timeout=30)
    assert provider_log(duck)[0] == 1


def test_a_result_that_is_not_there_yet_is_no_failure(start_duck: StartDuck) -> None:
    duck, gate = gated(start_duck)
    job = duck.submit(ask_for("slow"))
    with pytest.raises(TimeoutError):
        duck.result(job, timeout=0.05)
    gate.open()
    assert duck.result(job, timeout=30).text == "re: slow"


def test_what_makes_no_sense_is_refused_at_once(duck: RubberDuck) -> None:
    with pytest.raises(InvalidRequest):
        duck.submit({"model": "any", "messages": []})
    with pytest.raises(InvalidRequest, match="safety"):
        duck.submit(REQUEST, safety="perhaps")
    with pytest.raises(InvalidRequest, match="unknown option"):
        duck.complete(REQUEST, key="k")
    with pytest.raises(KeyError):
        duck.result("nobody")
    with pytest.raises(KeyError):
        duck.job("nobody")


def test_without_a_section_for_jobs_it_is_said_what_to_add(start_duck: StartDuck) -> None:
    with pytest.raises(ConfigError, match="jobs"):
        start_duck().submit(REQUEST)


@pytest.fixture
def wait_for_looks(monkeypatch: pytest.MonkeyPatch, eventually: Eventually) -> Callable[[int], None]:
    """`wait_for_looks(n)`: until the jobs under way have been looked at so many times more."""
    looks, renew = [0], SqliteJobs.renew

    def counted(self: SqliteJobs, *args: Any) -> Any:
        renewed = renew(self, *args)
        looks[0] += 1
        return renewed

    def wait(count: int) -> None:
        until = looks[0] + count
        eventually(lambda: looks[0] >= until)

    monkeypatch.setattr(SqliteJobs, "renew", counted)
    return wait


def test_no_more_than_so_many_are_delivered_at_once(
    start_duck: StartDuck, eventually: Eventually, wait_for_looks: Callable[[int], None]
) -> None:
    duck, gate = gated(start_duck, max_running=2)
    jobs = [duck.submit(ask_for(f"{n}")) for n in range(6)]
    eventually(lambda: len(gate.arrived) == 2)
    duck.submit(ask_for("one more"))
    wait_for_looks(3)
    assert len(gate.arrived) == 2
    gate.open(100)
    assert [duck.result(job, timeout=30).text for job in jobs] == [f"re: {n}" for n in range(6)]


def test_a_refused_job_is_tried_again_until_its_provider_is_back(start_duck: StartDuck) -> None:
    responses = [{"error": "server_error"}] * 3 + [HELLO]
    duck = start_duck(
        {"mock": {"module": "mock", "responses": responses}},
        jobs=JOBS,
        retry={**FAST, "max_attempts": 1},
        circuit_breaker={"failure_threshold": 1, "reset_timeout": "200ms", "success_threshold": 1},
    )
    job = duck.submit(REQUEST, safety="at_least_once")
    with pytest.raises(ServiceUnavailable):  # three deliveries came to nothing
        duck.result(job, timeout=30)
    assert duck.job(job).state is JobState.DEAD
    assert duck.result(duck.submit(REQUEST), timeout=30).text == "hello there"


def test_open_circuits_count_as_no_delivery(start_duck: StartDuck, eventually: Eventually) -> None:
    duck = start_duck(jobs={**JOBS, "max_deliveries": 1}, retry=FAST)
    breaker = duck.actor("circuit_breaker:mock")
    breaker.ask(circuit_breaker.ForceOpen())
    job = duck.submit(REQUEST)
    eventually(lambda: duck.job(job).turned_away >= 2)
    breaker.ask(circuit_breaker.Reset())
    assert duck.result(job, timeout=30).text == "hello there"


def test_a_job_that_is_too_old_is_not_sent(
    start_duck: StartDuck, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    duck, gate = gated(start_duck, max_running=1, expire="30m")
    blocking, late = duck.submit(ask_for("blocks")), duck.submit(ask_for("late"))
    eventually(lambda: gate.arrived == ["blocks"])
    monkeypatch.setattr(deliveries, "datetime", InAnHour)
    gate.open(2)
    assert duck.result(blocking, timeout=30).text == "re: blocks"
    with pytest.raises(DeadlineExceeded):
        duck.result(late, timeout=30)
    assert gate.arrived == ["blocks"]


@pytest.mark.parametrize("victim", ["jobs", "deliveries", "service", "cost_tracker", "request_queue"])
def test_jobs_survive_the_death_of_any_actor(start_duck: StartDuck, victim: str, eventually: Eventually) -> None:
    duck, gate = gated(start_duck)
    jobs = [duck.submit(ask_for(f"{n}")) for n in range(5)]
    eventually(lambda: len(gate.arrived) == 5)
    duck.system.kill(duck.actor(victim))
    gate.open(100)
    assert [duck.result(job, timeout=30).text for job in jobs] == [f"re: {n}" for n in range(5)]
    assert sorted(gate.arrived) == [f"{n}" for n in range(5)]


def test_who_waits_for_a_job_hears_its_end_though_its_keeper_dies(start_duck: StartDuck) -> None:
    """The waiter got Pykka's ActorDeadError, and so did who looked at a job, at costs or at the status just then."""
    duck, gate = gated(start_duck)
    job = duck.submit(ask_for("one"))

    async def wait_through_deaths() -> str:
        waiting = [asyncio.create_task(duck.aresult(job, timeout=30)), asyncio.create_task(blocking())]
        for _ in range(3):
            await asyncio.sleep(0)
            duck.system.kill(duck.actor("jobs"))
        assert (await asyncio.to_thread(duck.job, job)).id == job
        gate.open()
        return " ".join([answer.text for answer in await asyncio.gather(*waiting)])

    async def blocking() -> Any:
        return await asyncio.to_thread(duck.result, job, 10)

    assert asyncio.run(wait_through_deaths()) == "re: one re: one"


def test_many_submits_and_ends_are_looked_at_together(start_duck: StartDuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each had the disk written for itself, and what waited to be looked at held up renewals, and the end."""
    looks, finds, lease, find = [0], [0], SqliteJobs.lease, SqliteJobs.find

    def slow_lease(self: SqliteJobs, *args: Any) -> Any:
        looks[0] += 1
        time.sleep(0.005)
        return lease(self, *args)

    def counted_find(self: SqliteJobs, id: str) -> Any:
        finds[0] += 1
        return find(self, id)

    monkeypatch.setattr(SqliteJobs, "lease", slow_lease)
    monkeypatch.setattr(SqliteJobs, "find", counted_find)
    duck = start_duck(jobs={"lease": "150ms", "max_running": 100})

    async def flood() -> list[Any]:
        jobs = await asyncio.gather(*[duck.asubmit(ask_for(f"{n}")) for n in range(300)])
        return await asyncio.gather(*[duck.aresult(job, 20) for job in jobs])

    began = time.monotonic()
    assert len(asyncio.run(flood())) == 300
    duck.actor("deliveries").ask(deliveries.Rest(), timeout=30)  # which is behind all that it was told
    assert looks[0] < 200 + (time.monotonic() - began) / 0.05  # for the leases alone it looks so often
    assert finds[0] <= 600  # who begins to wait, and the end; not all who wait at each look
    assert provider_log(duck)[0] == 300


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the writes that the disk of every jobs' file refuses at present."""
    refused: set[str] = set()

    def guarded(name: str, write: Any) -> Any:
        def guard(*args: Any, **options: Any) -> Any:
            if name in refused:
                raise LedgerUnavailable("the disk is full")
            return write(*args, **options)

        return guard

    for name in ("submit", "lease", "renew", "finish", "give_back", "forget"):
        monkeypatch.setattr(SqliteJobs, name, guarded(name, getattr(SqliteJobs, name)))
    monkeypatch.setattr(deliveries, "NOT_WRITABLE", 0.05)
    return refused


def test_a_full_disk_ends_no_more_than_what_needs_it_and_no_answer_is_lost(
    start_duck: StartDuck, refusing: set[str], eventually: Eventually
) -> None:
    """Who delivers crashed over each look at the disk until the whole tree gave up, and the answers in hand, paid for,
    were lost: their jobs were declared dead.
    """
    duck, gate = gated(start_duck, lease="100ms")
    jobs = [duck.submit(ask_for(f"{n}")) for n in range(3)]
    eventually(lambda: len(gate.arrived) == 3)
    refusing |= {"submit", "lease", "renew", "finish", "give_back", "forget"}
    gate.open(4)
    for _ in range(50):
        with pytest.raises(LedgerUnavailable):
            duck.submit(REQUEST)
    with pytest.raises(TimeoutError):
        duck.result(jobs[0], timeout=0.5)
    assert duck.complete(ask_for("plain")).text == "re: plain"
    assert duck.system.whereis("deliveries").name.incarnation.epoch == 1
    refusing.clear()
    assert [duck.result(job, timeout=30).text for job in jobs] == ["re: 0", "re: 1", "re: 2"]
    assert sorted(gate.arrived) == ["0", "1", "2", "plain"]


def test_a_lease_that_the_disk_did_not_let_renew_is_no_dead_owners(
    start_duck: StartDuck, refusing: set[str], eventually: Eventually
) -> None:
    """It was taken for one, by its own owner, and the job was dead while its answer was on the way."""
    duck, gate = gated(start_duck, lease="100ms")
    job = duck.submit(ask_for("long"))
    eventually(lambda: gate.arrived == ["long"])
    refusing |= {"renew", "lease"}
    with pytest.raises(TimeoutError):
        duck.result(job, timeout=0.6)
    refusing.clear()
    gate.open()
    assert duck.result(job, timeout=30).text == "re: long"
    assert gate.arrived == ["long"]


@pytest.mark.parametrize("id", [10**400, -1, None, b"id", "\ud800", "\x00", "é", "a" * 5000, float("nan"), [], {}])
def test_whatever_is_taken_for_a_jobs_id_harms_nobody(duck: RubberDuck, id: Any) -> None:
    """SQLite takes no such number: its keeper crashed over it again and again, and the whole tree gave up."""
    for ask in (duck.result, duck.job, lambda each: asyncio.run(duck.aresult(each, timeout=1))):
        with pytest.raises(KeyError, match="there is no job"):
            ask(id)
    assert duck.result(duck.submit(REQUEST), timeout=30).text == "hello there"


@pytest.mark.parametrize("timeout", ["x", -1, float("nan"), float("inf"), 10**400, True, [1]])
def test_a_wait_that_is_no_time_is_refused_at_once(duck: RubberDuck, timeout: Any) -> None:
    with pytest.raises(InvalidRequest, match="timeout"):
        duck.result("id", timeout)
    with pytest.raises(InvalidRequest, match="timeout"):
        asyncio.run(duck.aresult("id", timeout))


def test_a_duck_whose_tree_has_given_up_can_be_stopped(start_duck: StartDuck, eventually: Eventually) -> None:
    """`stop` raised CallInterrupted where durable jobs were kept, for nobody was left who delivers them."""
    duck = start_duck(jobs=JOBS, supervision={"max_restarts": 0, "max_seconds": 1})
    duck.system.kill(duck.actor("service"))
    eventually(lambda: duck.system.whereis("deliveries") is None)
    assert duck.stop(5)


def test_without_the_section_nobody_is_asked_for_jobs(start_duck: StartDuck) -> None:
    duck = start_duck()
    for ask in (duck.submit, duck.result, duck.job):
        with pytest.raises(ConfigError, match="jobs"):
            ask(REQUEST if ask == duck.submit else "id")


@pytest.mark.parametrize("victim", ["cost_tracker", "request_queue", "rate_limiter:mock", "circuit_breaker:mock"])
def test_who_looks_while_an_actor_keeps_dying_sees_what_its_next_life_knows(start_duck: StartDuck, victim: str) -> None:
    """`costs` and `status` failed with the ActorDeadError of whoever died over the question."""
    duck = start_duck(supervision={"max_restarts": 1_000_000, "max_seconds": 1})
    ref = duck.actor(victim)
    seen = 0

    def kill_some(path: str) -> None:
        nonlocal seen
        seen += 1
        if seen % 6:
            duck.system.kill(ref)

    with fault("before_handle", kill_some, path=victim):
        for _ in range(5):
            assert duck.status().ok
            assert duck.costs().cost == 0
    assert seen >= 5


@pytest.mark.parametrize("victim", ["jobs", "deliveries", "service"])
def test_jobs_are_accepted_and_answered_once_while_an_actor_keeps_dying(start_duck: StartDuck, victim: str) -> None:
    duck = start_duck(jobs=JOBS, supervision={"max_restarts": 1000, "max_seconds": 1})
    jobs = []
    for n in range(40):
        jobs.append(duck.submit(REQUEST, key=f"k{n}"))
        if n % 4 == 0:
            duck.system.kill(duck.actor(victim))
    assert [duck.result(job, timeout=30).text for job in jobs] == ["hello there"] * 40
    assert provider_log(duck) == ledger(duck) == (40, 200)


def test_a_stop_hands_on_what_was_not_begun_and_keeps_what_was(
    start_duck: StartDuck, tmp_path: Path, eventually: Eventually
) -> None:
    kept = {**JOBS, "path": str(tmp_path / "jobs.db")}
    duck, gate = gated(start_duck, **kept, max_running=1)
    first, second = duck.submit(ask_for("first")), duck.submit(ask_for("second"))
    eventually(lambda: gate.arrived == ["first"])
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(duck.stop, 10)
        eventually(lambda: rests(duck))
        gate.open(1)
    assert stopping.result()
    again = start_duck({"mock": {"module": "mock", "models": ["any"], "responses": [HELLO]}}, jobs=kept)
    assert again.result(first, timeout=30).text == "re: first"
    assert again.result(second, timeout=30).text == "hello there"


def rests(duck: RubberDuck) -> bool:
    """Whether the actor that delivers begins nothing more, and waits for what is under way."""
    node = duck.tree().find("deliveries")
    return node is not None and node.busy_with == "Rest"


# -- a process that is killed -------------------------------------------------------------------------------------

CHILD = """
import json, sys
from rubberduck import RubberDuck
from rubberduck.actors import deliveries
config, requests = json.loads(sys.argv[1])
duck = RubberDuck.start(config)
print(json.dumps([duck.submit(request, safety=safety) for request, safety in requests]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def upstream(server: FaultServer, tmp_path: Path, **jobs: Any) -> dict[str, Any]:
    return {
        "providers": {"up": {"module": "openai", "api_key": "k", "base_url": f"{server.base_url}", "models": ["any"]}},
        "ledger": {"path": str(tmp_path / "ledger.db")},
        "jobs": {**JOBS, **jobs},
        "retry": {"max_attempts": 1},
    }


def killed_in(
    config: dict[str, Any], requests: list[tuple[dict[str, Any], str]], ready: Callable[[], bool]
) -> list[str]:
    """The jobs that a process had accepted when it was killed, as soon as `ready`."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps([config, requests])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout is not None
        jobs: list[str] = json.loads(child.stdout.readline())
        until = time.monotonic() + 30
        while not ready():
            assert time.monotonic() < until
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
    return jobs


def test_what_a_killed_process_had_accepted_and_not_sent_is_answered_by_the_next(
    server: FaultServer, tmp_path: Path
) -> None:
    server.play(Hold())
    config = upstream(server, tmp_path, max_running=1)
    sent, waiting = killed_in(config, [(REQUEST, "at_most_once")] * 2, lambda: len(server.calls) == 1)
    server.play(Ok())
    with RubberDuck.start(config) as duck:
        assert duck.result(waiting, timeout=30).text
        with pytest.raises(CallInterrupted, match="may have been executed") as told:
            duck.result(sent, timeout=30)
        assert told.value.spent is None
    assert len(server.calls) == 2


def test_what_may_have_been_executed_is_sent_again_where_that_was_asked_for(
    server: FaultServer, tmp_path: Path
) -> None:
    server.play(Hold())
    config = upstream(server, tmp_path)
    (job,) = killed_in(config, [(REQUEST, "at_least_once")], lambda: len(server.calls) == 1)
    server.play(Ok())
    with RubberDuck.start(config) as duck:
        assert duck.result(job, timeout=30).text
        assert duck.job(job).deliveries == 2
    assert len(server.calls) == 2


def test_a_job_that_is_answered_with_an_error_keeps_the_error(server: FaultServer, tmp_path: Path) -> None:
    server.play(Status(400, message="no such parameter"))
    config = upstream(server, tmp_path)
    with RubberDuck.start(config) as duck:
        job = duck.submit(REQUEST)
        with pytest.raises(InvalidRequest, match="no such parameter"):
            duck.result(job, timeout=30)
    with RubberDuck.start(config) as duck, pytest.raises(InvalidRequest, match="no such parameter") as told:
        duck.result(job, timeout=30)
    assert [attempt.provider for attempt in told.value.attempts] == ["up"]
    assert len(server.calls) == 1


def test_a_jump_of_the_clock_loses_no_delivery_under_way(
    start_duck: StartDuck,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
    wait_for_looks: Callable[[int], None],
) -> None:
    duck, gate = gated(start_duck)
    job = duck.submit(ask_for("slow"))
    eventually(lambda: gate.arrived == ["slow"])
    monkeypatch.setattr(keeper, "datetime", InAnHour)
    wait_for_looks(4)
    gate.open()
    assert duck.result(job, timeout=30).text == "re: slow"
    assert gate.arrived == ["slow"]
