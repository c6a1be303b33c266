"""Hear what happens: handlers of your own, and the durations and costs as StatsD datagrams.

Handlers run on a thread of their own, so a slow one delays no call; one that raises is detached and reported.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from rubberduck import RubberDuck, telemetry
from rubberduck.errors import AuthenticationFailed
from rubberduck.telemetry.names import COST, REQUEST_EXCEPTION, REQUEST_START, REQUEST_STOP
from rubberduck.telemetry.statsd import StatsD

CONFIG = {
    "providers": {"mock": {"responses": [{"content": "Quack.", "tokens": 100}, {"error": "auth"}]}},
    "prices": {"mock/any": {"input": 1, "output": 2}},
    "ledger": {"path": ":memory:"},
}


def tell(event: tuple[str, ...], measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Any) -> None:
    name = ".".join(event[2:])
    if event == REQUEST_START:
        print(f"{name}: {metadata['model']}")
    elif event == REQUEST_STOP:
        took = measurements["duration"] / 1_000_000
        print(f"{name}: {metadata['provider']}/{metadata['model']}, {metadata['tokens']} tokens, {took:.1f} ms")
    elif event == REQUEST_EXCEPTION:
        print(f"{name}: {metadata['error']}: {metadata['message']}")
    elif event == COST:
        print(f"{name}: {measurements['cost']} USD, {measurements['tokens']} tokens")


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:  # in place of a StatsD server
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        statsd = StatsD(*server.getsockname())
        telemetry.attach("print", [REQUEST_START, REQUEST_STOP, REQUEST_EXCEPTION, COST], tell)
        telemetry.attach("statsd", StatsD.EVENTS, statsd)
        try:
            with RubberDuck.start(CONFIG) as duck:
                request = {"model": "any", "messages": [{"role": "user", "content": "Hi"}]}
                duck.complete(request)
                try:
                    duck.complete(request)
                except AuthenticationFailed as error:
                    print(f"raised: {type(error).__name__}")
            telemetry.flush()
            print("datagram:", server.recv(1024).decode())
            print("datagram:", server.recv(1024).decode())
        finally:
            telemetry.detach("print")
            telemetry.detach("statsd")
            statsd.close()


if __name__ == "__main__":
    main()
