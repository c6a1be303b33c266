"""The package `supervision` alone: a pool of Pykka actors whose members may crash.

A message that no handler survives costs its sender an exception and the pool one restart, nothing else.
"""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pykka

import supervision as sup

logging.getLogger("supervision").setLevel(logging.CRITICAL)  # it would log each crash; here they are expected


class Resizer(pykka.ThreadingActor):  # blocking work: a plain Pykka actor, in a thread of its own
    def on_receive(self, image: dict[str, int]) -> str:
        return f"{image['width'] // 2}x{image['height'] // 2}"


class Dispatcher(sup.Actor):  # many at once: an actor on the event loop
    """Hands each image to the next worker, which answers the asker itself: nobody waits in between."""

    def __init__(self, system: sup.System, workers: int) -> None:
        super().__init__()
        self._workers = itertools.cycle([system.whereis(f"pool/resizer{number}") for number in range(workers)])

    def on_receive(self, image: Any) -> sup.Reply:
        reply = self.owe()
        reply.forward(next(self._workers), image)
        return reply


def main() -> None:
    with sup.System("images") as system:
        system.supervise(
            sup.supervisor("pool", *(sup.ChildSpec(f"resizer{number}", Resizer) for number in range(3))),
            sup.ChildSpec("dispatcher", Dispatcher, args=(system, 3)),
        )
        dispatcher = system.whereis("dispatcher")
        for image in ({"width": 800, "height": 600}, {"width": 640}, {"width": 64, "height": 64}):
            try:
                print(dispatcher.ask(image))
            except KeyError as error:
                print(f"KeyError: {error}, and the worker that raised it is started again")
        print()
        print(system.tree())


if __name__ == "__main__":
    main()
