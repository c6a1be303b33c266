"""The package `supervision` alone: a pool of workers that may crash, and jobs that come and go under a limit.

Resizing blocks, so each worker is a plain Pykka actor with a thread of its own. A message that makes one crash costs
its sender an exception and the pool one restart, nothing else.
"""

from __future__ import annotations

import logging
from typing import Any

import pykka

import supervision as sup

logging.getLogger("supervision").setLevel(logging.CRITICAL)  # it would log each crash; here they are expected


class Resizer(pykka.ThreadingActor):
    """Nothing in it knows of supervision."""

    def on_receive(self, image: dict[str, int]) -> str:
        return f"{image['width'] // 2}x{image['height'] // 2}"


class Upload(sup.Actor):
    """One per upload, on the event loop: thousands of them need no thousands of threads."""

    def __init__(self, client: str) -> None:
        super().__init__()
        self.client, self.parts = client, 0

    def on_receive(self, part: Any) -> str:
        self.parts += 1
        if part is None:
            self.exit(sup.Normal())  # done: not a crash, so nobody restarts it
        return f"{self.client}: {self.parts} parts"


def main() -> None:
    with sup.System("images") as system:
        system.supervise(
            sup.partition("pool", sup.ChildSpec("resizer", Resizer), partitions=3),
            sup.dynamic("uploads", max_children=2),
        )

        pool = system.whereis("pool")
        for name, image in {
            "cat.png": {"width": 800, "height": 600},
            "broken.png": {"width": 640},
            "dog.png": {"width": 64, "height": 64},
        }.items():
            worker = pool.route(name)  # the same key, the same worker
            try:
                print(name, worker.ask(image))
            except KeyError as error:
                print(f"{name} KeyError: {error}, and the worker that raised it is started again")

        uploads = system.whereis("uploads")
        for client in ("ann", "bob", "cid"):
            match uploads.start_child(sup.ChildSpec(client, Upload, args=(client,), restart="transient")).get():
                case sup.Started(ref=ref):
                    print(ref.ask(b"..."))
                case sup.MaxChildren():
                    print(f"{client}: come back later")
        print(system.whereis("uploads/ann").ask(None), "and done")

        print()
        print(system.tree())


if __name__ == "__main__":
    main()
