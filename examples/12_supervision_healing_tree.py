"""How a tree heals: the live tree before, during and after a crash; a handler that hangs; a child that gives up.

`rest_for_one`: `cache` is started after `database` and depends on it, so when `database` ends both are started anew.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import pykka

import supervision as sup

logging.getLogger("supervision").setLevel(logging.CRITICAL)  # it would log each crash; here they are expected


class Counter(sup.Actor):
    """Counts, and leaves its count to the next incarnation."""

    def on_start(self) -> None:
        self.count: int = self.context.snapshot or 0

    def on_receive(self, message: Any) -> int:
        self.count += message  # anything but a number is a crash
        return self.count

    def snapshot(self) -> int:
        """What the next incarnation finds in `self.context.snapshot`; never taken after a failed handler."""
        return self.count


class Cache(sup.Actor):
    def on_receive(self, message: Any) -> Any:
        return message


class Slow(pykka.ThreadingActor):
    """Blocks for ever if it is told so. Python cannot kill a thread."""

    def on_receive(self, message: Any) -> Any:
        if message == "hang":
            threading.Event().wait()
        return message


def main() -> None:
    is_down, slow_is_back = threading.Event(), threading.Event()

    # On a thread of its own, so that it can neither delay nor break the tree. It prints beside the main thread, for
    # which reason each `print` here is given one text.
    def listen(event: sup.Event) -> None:
        if event.name in ("backoff", "child_restarted", "abandoned"):
            print(f"    event: {event.name} {event.path}")
        if event.name == "backoff":
            is_down.set()
        if event.name == "child_restarted" and event.path == "root/slow":
            slow_is_back.set()

    with sup.System("demo", kill_grace=0.1) as system:
        system.events.subscribe(listen)
        tree = system.supervise(
            sup.ChildSpec(
                "database", Counter, state=sup.snapshot(every_messages=1), backoff=sup.Backoff(min=0.2, max=0.3)
            ),
            sup.ChildSpec("cache", Cache),
            sup.ChildSpec("slow", Slow, max_handle_time=0.2),
            strategy=sup.Strategy.REST_FOR_ONE,
            max_restarts=3,
            max_seconds=60,
        )
        database = system.whereis("database")
        print("count:", database.ask(41))
        print(system.tree())

        print("\nA crash. For 0.2 s nobody lives there; messages wait, and the ref stays good.")
        database.tell("this is no number")
        later = database.ask(1, block=False)
        is_down.wait(30)
        print(system.tree())
        print(f"count after a crash: {later.get(timeout=30)} - the same ref, a new incarnation, its snapshot")
        slow_is_back.wait(30)

        print("\nA handler that hangs. After max_handle_time it is left behind, and replaced.")
        slow_is_back.clear()
        try:
            system.whereis("slow").ask("hang", timeout=30)
        except sup.ActorStuck as error:
            print(f"asked: {error}")
        slow_is_back.wait(30)
        print(f"its successor: {system.whereis('slow').ask('well')}")
        print(system.tree())

        print("\nMore than 3 restarts in 60 s: the supervisor stops repeating itself and gives up.")
        for _ in range(2):  # 2 of the 3 are used up
            database.tell("again")
        print(f"the root ended: {tree.ended.get(timeout=30).reason}")
        try:
            database.ask(1)
        except sup.ActorDeadError as error:
            print(f"asked afterwards: {error}")
        print("left behind:", system.unstopped_report())


if __name__ == "__main__":
    main()
