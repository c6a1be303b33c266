"""What happens inside RubberDuck, for those who want to know: one bus for the process.

from rubberduck import telemetry

def handle(event, measurements, metadata, config):
    print(metadata["model"], measurements["duration"] / 1_000_000, "ms")

telemetry.attach("my-metrics", [telemetry.names.REQUEST_STOP], handle)
"""

from __future__ import annotations

from rubberduck.telemetry import names
from rubberduck.telemetry.bus import AlreadyAttached, Bus, Handler, HandlerInfo
from rubberduck.telemetry.names import Event

bus = Bus()
"""The process's bus; the functions of this module are its methods."""

attach = bus.attach
detach = bus.detach
execute = bus.execute
flush = bus.flush
handlers = bus.handlers
is_attached = bus.is_attached

__all__ = [
    "AlreadyAttached",
    "Bus",
    "Event",
    "Handler",
    "HandlerInfo",
    "attach",
    "bus",
    "detach",
    "execute",
    "flush",
    "handlers",
    "is_attached",
    "names",
]
