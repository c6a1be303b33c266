"""What actors under supervision cost, beside a bare Pykka actor in a thread, in microseconds.

    python -m benchmarks.supervision [--rounds 3]

The best round of each is shown, since a shared machine only ever makes things slower. Read the figures as ratios.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from typing import Any

import pykka

import supervision as sup

ASKS = 20_000
CRASHES = 500
CHILDREN = 2_000
Measure = Callable[[], float]


class Echo(sup.Actor):
    def on_receive(self, message: Any) -> Any:
        return message(self) if callable(message) else message


class BareEcho(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


def per(count: int, function: Callable[[], object]) -> float:
    """Microseconds for one of the `count` things that `function` does."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) / count * 1e6


def bare_ask() -> float:
    ref = BareEcho.start()
    try:
        return per(ASKS, lambda: [ref.ask(1) for _ in range(ASKS)])
    finally:
        ref.stop()


def ask_between_loop_actors() -> float:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("a", Echo), sup.ChildSpec("b", Echo))
        other = system.whereis("b")

        async def ask_many(actor: Any) -> None:
            for _ in range(ASKS):
                await other.ask(1, block=False)

        return per(ASKS, lambda: system.whereis("a").ask(ask_many))


def ask_from_a_thread() -> float:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("it", Echo))
        ref = system.whereis("it")
        return per(ASKS, lambda: [ref.ask(1) for _ in range(ASKS)])


def ask_a_supervised_thread() -> float:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("it", BareEcho))
        ref = system.whereis("it")
        return per(ASKS, lambda: [ref.ask(1) for _ in range(ASKS)])


def tell() -> float:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("it", Echo))
        ref = system.whereis("it")

        def tell_many() -> None:
            for _ in range(ASKS):
                ref.tell(1)
            ref.ask(1)

        return per(ASKS, tell_many)


def crash_to_replacement() -> float:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("it", Echo), max_restarts=10 * CRASHES)
        ref = system.whereis("it")

        def crash(actor: Any) -> None:
            raise ValueError("crash")

        def crash_many() -> None:
            for _ in range(CRASHES):
                ref.tell(crash)
                ref.ask(1)

        return per(CRASHES, crash_many)


def start(count: int = CHILDREN) -> float:
    with sup.System("bench") as system:
        specs = [sup.ChildSpec(f"c{n}", Echo) for n in range(count)]
        return per(count, lambda: system.supervise(*specs))


def stop(count: int = CHILDREN) -> float:
    with sup.System("bench") as system:
        system.supervise(*(sup.ChildSpec(f"c{n}", Echo) for n in range(count)))
        return per(count, system.stop)


ROWS: dict[str, Measure] = {
    "ask of a bare Pykka thread, from a thread": bare_ask,
    "ask between two actors on a loop": ask_between_loop_actors,
    "ask of an actor on a loop, from a thread": ask_from_a_thread,
    "ask of a supervised Pykka thread, from a thread": ask_a_supervised_thread,
    "tell, from a thread, handled": tell,
    "crash to replacement, answering again": crash_to_replacement,
    f"start of a child, {CHILDREN} at once": start,
    f"start of a child, {4 * CHILDREN} at once": lambda: start(4 * CHILDREN),
    f"stop of a child, {CHILDREN} at once": stop,
    f"stop of a child, {4 * CHILDREN} at once": lambda: stop(4 * CHILDREN),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    logging.getLogger("supervision").setLevel(logging.CRITICAL)
    best = {name: min(measure() for _ in range(rounds)) for name, measure in ROWS.items()}
    baseline = next(iter(best.values()))
    print(f"{'':<50}{'µs':>10}{'ratio':>8}")
    for name, value in best.items():
        print(f"{name:<50}{value:>10.1f}{value / baseline:>8.2f}")


if __name__ == "__main__":
    main()
