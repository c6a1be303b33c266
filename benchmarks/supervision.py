"""What actors under supervision cost, beside bare Pykka actors in threads, in one run, each with its target.

    python -m benchmarks.supervision [--rounds 3]

A shared machine only ever makes things slower: the least of several rounds is closest to what the code costs, and the
median says what a day with neighbours looks like. Targets are held against the least. How to read it: README.md.
"""

from __future__ import annotations

import argparse
import gc
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pykka

import supervision as sup

ASKS, SAMPLES = 2_000, 5
"""How many in one sample, short enough to fall between two neighbours, and how many samples in a round."""
CRASHES = 500
FEW, MANY = 2_000, 10_000
MILLION = 1_000_000
BURST = 10_000
"""Fewer than a mailbox holds, so that no message is refused."""


class Echo(sup.Actor):
    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


class BareEcho(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


@dataclass
class Row:
    """One thing that is measured: its figures of all rounds, what they may be at most, and Pykka's row to compare."""

    title: str
    unit: str
    target: float | None = None
    beside: str | None = None
    figures: list[float] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return f"{self.target:g}  {'met' if min(self.figures) < self.target else 'MISSED'}"


ROWS = {
    "pykka_ask": Row("Pykka: ask, from a thread", "µs"),
    "ask": Row("ask between two actors on a loop", "µs", 10, "pykka_ask"),
    "ask_from_thread": Row("ask of an actor on a loop, from a thread", "µs", 60, "pykka_ask"),
    "ask_thread": Row("ask of a supervised Pykka actor, from a thread", "µs", None, "pykka_ask"),
    "pykka_tell": Row("Pykka: tell, handled", "µs"),
    "tell": Row("tell of an actor on a loop, handled", "µs", 3, "pykka_tell"),
    "crash": Row(f"crash to replacement, median of {CRASHES}", "ms", 1),
    "pykka_start": Row("Pykka: start of an actor", "µs"),
    "start_few": Row(f"start of a child, {FEW:,} at once", "µs", None, "pykka_start"),
    "start_many": Row(f"start of a child, {MANY:,} at once", "µs", None, "pykka_start"),
    "start_all": Row(f"start of {MANY:,} children", "s", 2),
    "start_growth": Row(f"start: a child of {MANY:,} to one of {FEW:,}", "times", 1.5),
    "pykka_stop": Row("Pykka: stop of an actor", "µs"),
    "stop_few": Row(f"stop of a child, {FEW:,} at once", "µs", None, "pykka_stop"),
    "stop_many": Row(f"stop of a child, {MANY:,} at once", "µs", None, "pykka_stop"),
    "stop_all": Row(f"stop of {MANY:,} children", "s", 2),
    "stop_growth": Row(f"stop: a child of {MANY:,} to one of {FEW:,}", "times", 1.5),
    "million_memory": Row(f"memory that {MILLION:,} messages leave behind", "MB", 1),
    "million_objects": Row(f"objects that {MILLION:,} messages leave behind", "", 100),
}


def note(key: str, figure: float) -> None:
    ROWS[key].figures.append(figure)


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def per_message(function: Callable[[], object]) -> float:
    return seconds(function) / ASKS * 1e6


def tell_many(ref: Any) -> None:
    for _ in range(ASKS):
        ref.tell(1)
    ref.ask(1)  # behind all of them


def measure_pykka_messages() -> None:
    ref = BareEcho.start()
    for _ in range(SAMPLES):
        note("pykka_ask", per_message(lambda: [ref.ask(1) for _ in range(ASKS)]))
        note("pykka_tell", per_message(lambda: tell_many(ref)))
    ref.stop()


def measure_pykka_lives(count: int = 500) -> None:
    refs: list[Any] = []
    note("pykka_start", seconds(lambda: refs.extend(BareEcho.start() for _ in range(count))) / count * 1e6)
    note("pykka_stop", seconds(lambda: [ref.stop() for ref in refs]) / count * 1e6)


def measure_messages() -> None:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("a", Echo), sup.ChildSpec("b", Echo), sup.ChildSpec("thread", BareEcho))
        a, b, thread = (system.whereis(id) for id in ("a", "b", "thread"))

        async def ask_many(actor: Any) -> None:
            for _ in range(ASKS):
                await b.ask(1, block=False)

        for _ in range(SAMPLES):
            note("ask", per_message(lambda: a.ask(ask_many)))
            note("ask_from_thread", per_message(lambda: [a.ask(1) for _ in range(ASKS)]))
            note("ask_thread", per_message(lambda: [thread.ask(1) for _ in range(ASKS)]))
            note("tell", per_message(lambda: tell_many(a)))


def measure_crashes() -> None:
    def crash(actor: Any) -> None:
        raise ValueError("crash")

    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("it", Echo), max_restarts=10 * CRASHES)
        ref = system.whereis("it")

        def crash_and_ask() -> None:
            ref.tell(crash)
            ref.ask(1)  # is answered by the replacement

        note("crash", statistics.median(seconds(crash_and_ask) for _ in range(CRASHES)) * 1e3)


def start_and_stop(count: int) -> tuple[float, float]:
    """How many seconds `count` children take to start, and to stop."""
    specs = [sup.ChildSpec(f"c{number}", Echo) for number in range(count)]
    system = sup.System("bench")
    gc.collect()  # what earlier rounds left is not on this one's account
    return seconds(lambda: system.supervise(*specs)), seconds(system.stop)


def measure_lives() -> None:
    few, many = start_and_stop(FEW), start_and_stop(MANY)
    for word, of_few, of_many in zip(("start", "stop"), few, many, strict=True):
        note(f"{word}_few", of_few / FEW * 1e6)
        note(f"{word}_many", of_many / MANY * 1e6)
        note(f"{word}_all", of_many)


def memory_mb() -> float:
    """What this process holds now, in megabytes; 0 where the system does not say it this way."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * 4096 / 1e6 if statm.exists() else 0.0


def measure_a_million() -> None:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("it", Echo))
        ref = system.whereis("it")

        def send(count: int) -> None:
            for _ in range(count // BURST):
                for _ in range(BURST):
                    ref.tell(1)
                ref.ask(1)

        send(MILLION // 10)  # what it takes to be under way
        gc.collect()
        memory, objects = memory_mb(), len(gc.get_objects())
        send(MILLION)
        gc.collect()
        note("million_memory", memory_mb() - memory)
        note("million_objects", len(gc.get_objects()) - objects)


def show() -> None:
    for word in ("start", "stop"):  # of the least figures: a ratio within one bad round says little
        note(f"{word}_growth", min(ROWS[f"{word}_many"].figures) / min(ROWS[f"{word}_few"].figures))
    print(f"{'':<50}{'least':>9}{'median':>9} {'':<6}{'to Pykka':>9}   target")
    for row in ROWS.values():
        ratio = "" if row.beside is None else f"{min(row.figures) / min(ROWS[row.beside].figures):.2f}"
        least, median = min(row.figures), statistics.median(row.figures)
        print(f"{row.title:<50}{least:>9.2f}{median:>9.2f} {row.unit:<6}{ratio:>9}   {row.verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    logging.getLogger("supervision").setLevel(logging.CRITICAL + 1)
    for _ in range(rounds):  # one after another, so that a bad minute of the machine falls upon all alike
        measure_pykka_messages()
        measure_messages()
        measure_crashes()
        measure_pykka_lives()
        measure_lives()
    measure_a_million()
    show()


if __name__ == "__main__":
    main()
