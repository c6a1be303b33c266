"""A long-running program: on SIGTERM it takes no new calls, finishes those in flight, and leaves nothing behind.

The program sends itself the signal, a moment after the first call has gone out.
"""

from __future__ import annotations

import os
import signal
import threading

from rubberduck import RubberDuck
from rubberduck.errors import CallInterrupted

CONFIG = {
    "providers": {"mock": {"responses": [{"content": "The last words.", "delay": "300ms"}]}},
    "ledger": {"path": ":memory:"},
}
REQUEST = {"model": "any", "messages": [{"role": "user", "content": "Anything else?"}]}


def main() -> None:
    wanted = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wanted.set())

    duck = RubberDuck.start(CONFIG)
    mock = duck.provider("mock")
    in_flight = duck.service.ask({"complete": REQUEST}, block=False)
    while not mock.calls:
        wanted.wait(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

    wanted.wait()
    print("SIGTERM: stopping, within 30 s")
    is_clean = duck.stop(timeout=30)
    print("the call in flight:", in_flight.get(timeout=30).text)
    try:
        duck.complete(REQUEST)
    except CallInterrupted as error:
        print("a call afterwards:", error)
    print("everything stopped:", is_clean, duck.system.unstopped_report())
    print("threads left:", [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()])


if __name__ == "__main__":
    main()
