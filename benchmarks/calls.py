"""What one call costs through RubberDuck's whole tree, beside the bare ways to do the same, in microseconds.

    python -m benchmarks.calls [--calls 2000] [--rounds 3]

All ways meet the same upstream in turn, round after round; the best round of each is shown, since a shared
machine only ever makes things slower. Read the figures as ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import supervision as sup
from benchmarks._upstream import running
from benchmarks.transport import Call, bare_carrier, client_of_httpx, client_over_aiohttp
from rubberduck import RubberDuck

REQUEST: dict[str, Any] = {"model": "bench", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
ASKS = 20_000


@asynccontextmanager
async def rubberduck(url: str, ledger: str = "full") -> AsyncIterator[Call]:
    """The whole way: validation, queue, choice, limiter, breaker, ledger, call, telemetry."""
    with tempfile.TemporaryDirectory() as directory:
        config = {
            "providers": {
                "bench": {"module": "openai", "base_url": url.removesuffix("/chat/completions"), "api_key": "bench",
                          "pool": {"size": 100}}
            },
            "ledger": {"path": str(Path(directory) / "ledger.sqlite"), "synchronous": ledger},
            "prices": {"bench": {"input": 1, "output": 2}},
        }  # fmt: skip
        duck = await asyncio.to_thread(RubberDuck.start, config)
        try:
            yield lambda: duck.acomplete(REQUEST)
        finally:
            await asyncio.to_thread(duck.stop)


WAYS: dict[str, Any] = {
    "the bare transport (aiohttp carrier)": bare_carrier,
    "httpx over the aiohttp transport": client_over_aiohttp,
    "httpx with its own pool": client_of_httpx,
    "RubberDuck, the whole tree": rubberduck,
}


async def microseconds(call: Call, calls: int, at_once: int) -> float:
    """Microseconds per call of `calls` calls, `at_once` at a time."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return (time.perf_counter() - started) / calls * 1e6


async def best_of(url: str, calls: int, rounds: int) -> dict[str, dict[int, float]]:
    best: dict[str, dict[int, float]] = {name: {} for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            async with way(url) as call:
                await microseconds(call, 100, 10)
                for at_once, share in ((1, 10), (64, 1)):
                    cost = await microseconds(call, calls // share, at_once)
                    best[name][at_once] = min(cost, best[name].get(at_once, cost))
    return best


class Echo(sup.Actor):
    """Answers with what it is asked."""

    def on_receive(self, message: Any) -> Any:
        return message


class Asker(sup.Actor):
    """Asks another actor many times and says what one ask took, in microseconds."""

    async def on_receive(self, ref: sup.ActorRef) -> float:
        started = time.perf_counter()
        for number in range(ASKS):
            await ref.ask(number, block=False)
        return (time.perf_counter() - started) / ASKS * 1e6


def ask_between_actors(rounds: int) -> float:
    with sup.System("bench") as system:
        system.supervise(sup.ChildSpec("echo", Echo), sup.ChildSpec("asker", Asker))
        return min(float(system.whereis("asker").ask(system.whereis("echo"))) for _ in range(rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with running() as base_url:
        best = asyncio.run(best_of(f"{base_url}/chat/completions", options.calls, options.rounds))
    baseline = best["httpx over the aiohttp transport"][64]
    print(f"{'us per call':<40}{'1 at a time':>14}{'64 at a time':>14}{'ratio':>8}")
    for name, costs in best.items():
        print(f"{name:<40}{costs[1]:>14.0f}{costs[64]:>14.0f}{costs[64] / baseline:>8.2f}")
    print("ratio: 64 at a time, against httpx over the aiohttp transport")
    print(f"one ask between two actors of one loop: {ask_between_actors(options.rounds):.1f} us")


if __name__ == "__main__":
    main()
