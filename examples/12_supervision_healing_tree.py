"""How a tree heals: strategies, a snapshot that survives a crash, a child that gives up, and the events of it all.

`rest_for_one`: when `database` ends, `cache`, which was started after it and depends on it, is started anew too.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

import supervision as sup

logging.getLogger("supervision").setLevel(logging.CRITICAL)  # it would log each crash; here they are expected


class Counter(sup.Actor):
    """Counts, and leaves its count to the next incarnation."""

    def on_start(self) -> None:
        self.count: int = self.context.snapshot or 0

    def on_receive(self, message: Any) -> int:
        self.count += message  # anything but a number is a crash
        self.remember(self.count)
        return self.count


class Echo(sup.Actor):
    def on_receive(self, message: Any) -> Any:
        return message


def main() -> None:
    restarts: list[str] = []
    all_back = threading.Event()

    def listen(event: sup.Event) -> None:
        if event.name == "child_restarted":
            restarts.append(f"{event.path}, because: {event.reason}")
            if len(restarts) == 2:
                all_back.set()

    with sup.System("demo") as system:
        system.events.subscribe(listen)
        tree = system.supervise(
            sup.ChildSpec("database", Counter),
            sup.ChildSpec("cache", Echo),
            strategy=sup.Strategy.REST_FOR_ONE,
            max_restarts=3,
            max_seconds=5,
        )
        database = system.whereis("database")
        print("count:", database.ask(41))
        database.tell("this is no number")
        print("count after a crash:", database.ask(1), "- the same ref, a new incarnation, its snapshot")
        all_back.wait(5)
        for restart in restarts:
            print("restarted:", restart)
        print(system.tree())

        print("\nMore than 3 restarts in 5 s: the supervisor stops repeating itself and gives up.")
        for _ in range(3):
            database.tell("again")
        print("the root ended:", tree.ended.get(timeout=5).reason)
        try:
            database.ask(1)
        except sup.ActorDeadError as error:
            print("asked afterwards:", error)


if __name__ == "__main__":
    main()
