"""The package `supervision` alone, all together: five workers, a flaky service with a rate limit, and the tests.

Each part is an actor for one reason: it fails alone, and is restarted alone. Jobs that were done stay done, by an
event log; the limiter's crash gives nobody a burst, by a snapshot; a call that hangs is cut off, by the watchdog.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import supervision as sup
from supervision.testing import DeterministicScheduler, ManualClock

logging.getLogger("supervision").setLevel(logging.CRITICAL)  # it would log each crash; here they are expected
JOBS = range(12)
Service = Callable[[int], str | None]  # the answer; OSError where it fails, None where it would never come


@dataclass(frozen=True, slots=True)
class Take(sup.Ask[float]):
    """When may I call? In so many seconds."""


@dataclass(frozen=True, slots=True)
class Job(sup.Ask[str]):
    number: int


class Limiter(sup.Actor):
    """Lets calls through one by one, `period` seconds apart."""

    def __init__(self, period: float) -> None:
        super().__init__()
        self.period = period

    def on_start(self) -> None:
        self.free_at: float = self.context.snapshot or 0.0
        self.context.system.registry.register("limiter", self.actor_ref)

    def on_receive(self, message: Take) -> float:
        now: float = self.context.clock.now()
        at = max(now, self.free_at)
        self.free_at = at + self.period
        return at - now

    def snapshot(self) -> float:
        return self.free_at


class Ledger(sup.Actor):
    """What has been done. Its log is read again after a crash, and by the next process."""

    def on_start(self) -> None:
        self.done: dict[int, str] = {}

    def apply(self, entry: Any) -> None:
        self.done[entry["job"]] = entry["answer"]

    def on_receive(self, message: Any) -> dict[int, str]:
        if isinstance(message, dict):
            self.record(message)  # first, for what was applied and not recorded is lost in a crash
            self.apply(message)
        return dict(self.done)


class Worker(sup.Actor):
    """Does a job. Whatever goes wrong ends it: its asker hears why, and a fresh worker takes the next job."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service

    async def on_receive(self, job: Job) -> str:
        system = self.context.system
        # By its key while it lives; its name is there even between two of its lives, and messages wait.
        limiter = system.registry.whereis("limiter") or system.whereis("limiter")
        await sup.sleep(self.context.clock, await sup.ask(limiter, Take()))
        answer = self.service(job.number)
        if answer is None:
            await asyncio.Event().wait()  # for ever; `max_handle_time` is what ends it
        # The answer is given once the ledger has it: who crashes in between does the job twice, not never.
        await system.whereis("ledger").ask({"job": job.number, "answer": answer}, block=False)
        return str(answer)


class Foreman(sup.Actor):
    """Counts how often each worker has ended."""

    def on_start(self) -> None:
        self.ends: dict[str, list[str]] = {}
        for number in range(5):
            self.watch_name(self.context.system.whereis(f"pool/{number}"))

    def on_receive(self, message: Any) -> Any:
        match message:
            case sup.Down(ref=ref, reason=reason):
                self.ends.setdefault(ref.path, []).append(str(reason))
            case "report":
                return self.ends
        return None


def supervise(system: sup.System, service: Service, folder: Path, period: float = 0.01) -> None:
    """The tree. They start from left to right and stop from right to left: the ledger outlives the workers."""
    system.supervise(
        sup.ChildSpec("ledger", Ledger, state=sup.event_log(folder / "jobs.log", quarantine=0)),
        sup.ChildSpec("limiter", Limiter, args=(period,), state=sup.snapshot(every_messages=1, quarantine=0)),
        sup.partition(
            "pool",
            sup.ChildSpec("worker", Worker, args=(service,), max_handle_time=0.5),
            partitions=5,
            max_restarts=100,
        ),
        sup.ChildSpec("foreman", Foreman),
    )


def do_all(system: sup.System, tell: Callable[[str], object] = lambda text: None) -> dict[int, str]:
    """Ask for all jobs that are not done, and again for those that failed; five failures of one are too many."""
    pool, ledger = system.whereis("pool"), system.whereis("ledger")
    for _ in range(5):
        done = ledger.ask("all")
        asked = [pool.route(number).ask(Job(number), block=False) for number in JOBS if number not in done]
        for future in asked:
            try:
                future.get()
            except (OSError, sup.ActorDeadError) as error:
                tell(f"    again: {error}")
    answers: dict[int, str] = ledger.ask("all")
    return answers


def flaky(hangs_at: int | None = None) -> Service:
    """A service that fails at the first call for every fourth job, and never answers the first one for `hangs_at`."""
    called: set[int] = set()

    def service(number: int) -> str | None:
        is_first = number not in called
        called.add(number)
        if is_first and number % 4 == 0:
            raise OSError(f"no connection for job {number}")
        return None if is_first and number == hangs_at else f"answer {number}"

    return service


def test_all_jobs_are_done_whatever_comes_first() -> None:
    """Twenty orders of all that may happen in any order; time is virtual."""
    for seed in range(20):
        with (
            tempfile.TemporaryDirectory() as folder,
            DeterministicScheduler(seed) as scheduler,
            sup.System("test", scheduler=scheduler) as system,
        ):
            supervise(system, flaky(), Path(folder), period=60.0)
            assert sorted(do_all(system)) == list(JOBS)
            assert scheduler.clock.now() >= 60.0 * (len(JOBS) - 1)  # nobody went faster than allowed
            assert system.audit() == []


def test_a_crash_of_the_limiter_gives_nobody_a_burst() -> None:
    clock = ManualClock()
    with sup.System("test", clock=clock) as system:
        spec = sup.ChildSpec("limiter", Limiter, args=(10.0,), state=sup.snapshot(every_messages=1))
        system.supervise(spec)
        limiter = system.whereis("limiter")
        assert [limiter.ask(Take()), limiter.ask(Take())] == [0.0, 10.0]
        system.kill(limiter)
        assert limiter.ask(Take()) == 20.0
        clock.advance(40)
        assert limiter.ask(Take()) == 0.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        service = flaky(hangs_at=7)
        for process in ("the first process", "the next process"):
            print(f"{process}:")
            with sup.System("jobs", kill_grace=0.1) as system:
                supervise(system, service, Path(folder))
                print("    done before:", len(system.whereis("ledger").ask("all")))
                print("    done after:", len(do_all(system, print)))
                for path, ends in sorted(system.whereis("foreman").ask("report").items()):
                    print(f"    {path} ended {len(ends)} times, the last time by {ends[-1]}")
            print("    left behind:", system.unstopped_report())
    for test in (test_all_jobs_are_done_whatever_comes_first, test_a_crash_of_the_limiter_gives_nobody_a_burst):
        test()
        print("passed:", test.__name__.removeprefix("test_").replace("_", " "))


if __name__ == "__main__":
    main()
