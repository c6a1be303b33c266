"""From asyncio code: many calls side by side, a stream, and a call that is given up.

The duck lives in threads of its own, so any event loop may use it; `complete` itself refuses to block yours.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from rubberduck import RubberDuck

ANSWER = {"content": "Quack, quack, quack.", "delay": "100ms"}
CONFIG = {
    "providers": {"mock": {"responses": [ANSWER] * 51 + [{"content": "Too late.", "delay": "60s"}]}},
    "ledger": {"path": ":memory:"},
}


def request(text: str) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}]}


def wait_until_asked(mock: Any, times: int) -> None:
    while len(mock.calls) < times:
        time.sleep(0.01)


async def talk(duck: RubberDuck, mock: Any) -> None:
    begun = time.monotonic()
    answers = await asyncio.gather(*(duck.acomplete(request(f"question {number}")) for number in range(50)))
    print(f"{len(answers)} answers of 0.1 s each, in {time.monotonic() - begun:.2f} s")

    async with duck.astream(request("now slowly")) as stream:
        async for chunk in stream:
            print(chunk.delta.content, end="|")
    print()

    task = asyncio.create_task(duck.acomplete(request("never mind")))
    await asyncio.to_thread(wait_until_asked, mock, 52)
    task.cancel()  # reaches the provider: the request is taken back, or its socket closed
    await asyncio.gather(task, return_exceptions=True)

    try:
        duck.complete(request("a blocking call on an event loop"))
    except RuntimeError as error:
        print(f"refused: {error}")


def main() -> None:
    with RubberDuck.start(CONFIG) as duck:
        mock = duck.provider("mock")
        asyncio.run(talk(duck, mock))
    print("the provider's log ends with:", [call.outcome for call in mock.calls[-2:]])


if __name__ == "__main__":
    main()
