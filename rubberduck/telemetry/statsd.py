"""Sends durations and costs to a StatsD server, as the design's monitoring example does.

    telemetry.attach("statsd", StatsD.EVENTS, StatsD("127.0.0.1", 8125))

Metrics are `llm.request.duration` (a histogram, in milliseconds) and `llm.cost` (a gauge, in USD), with the tags
`provider` and `model` in the form of DogStatsD (docs.datadoghq.com/developers/dogstatsd/datagram_shell).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Any

from rubberduck.telemetry.names import COST, REQUEST_STOP, Event

_NOT_IN_TAGS = re.compile(r"[|,#@\s]")


class StatsD:
    """A telemetry handler that writes UDP datagrams. A server that is away costs nothing but the numbers."""

    EVENTS = (REQUEST_STOP, COST)

    def __init__(self, host: str = "127.0.0.1", port: int = 8125) -> None:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self._address: tuple[Any, ...] = address
        self._socket = socket.socket(family, kind, protocol)
        self._socket.setblocking(False)
        self.lost = 0

    def __call__(
        self, event: Event, measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Any = None
    ) -> None:
        if event == REQUEST_STOP:
            self._send("llm.request.duration", measurements["duration"] / 1_000_000, "h", metadata)
        elif event == COST and measurements.get("cost") is not None:
            self._send("llm.cost", float(measurements["cost"]), "g", metadata)

    def close(self) -> None:
        """Give the socket back. Detach the handler first."""
        self._socket.close()

    def _send(self, name: str, value: float, kind: str, metadata: Mapping[str, Any]) -> None:
        tags = ",".join(f"{tag}:{_NOT_IN_TAGS.sub('_', str(metadata.get(tag)))}" for tag in ("provider", "model"))
        try:
            # No exponents: servers differ in whether they read them.
            self._socket.sendto(
                f"{name}:{f'{value:.9f}'.rstrip('0').rstrip('.')}|{kind}|#{tags}".encode(), self._address
            )
        except OSError:
            self.lost += 1
