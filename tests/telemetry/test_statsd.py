"""StatsD gets the design's two metrics over UDP, and its absence disturbs nobody."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from rubberduck.telemetry import Bus, names
from rubberduck.telemetry.statsd import StatsD

WHO = {"provider": "openai", "model": "gpt-4", "system": "duck"}


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        yield receiver


@pytest.fixture
def statsd(server: socket.socket) -> Iterator[StatsD]:
    handler = StatsD(*server.getsockname())
    yield handler
    handler.close()


@pytest.mark.parametrize(
    ("event", "measurements", "metadata", "datagram"),
    [
        (
            names.REQUEST_STOP,
            {"duration": 123_456_789},
            WHO,
            "llm.request.duration:123.456789|h|#provider:openai,model:gpt-4",
        ),
        (names.COST, {"cost": Decimal("0.0000025")}, WHO, "llm.cost:0.0000025|g|#provider:openai,model:gpt-4"),
        (names.COST, {"cost": 0}, WHO, "llm.cost:0|g|#provider:openai,model:gpt-4"),
        (names.COST, {"cost": 100}, WHO, "llm.cost:100|g|#provider:openai,model:gpt-4"),
        (names.COST, {"cost": 1}, {"provider": "a|b,c", "model": "x\ny#z"}, "llm.cost:1|g|#provider:a_b_c,model:x_y_z"),
    ],
)
def test_one_datagram_per_metric(
    server: socket.socket, statsd: StatsD, event: Any, measurements: Any, metadata: Any, datagram: str
) -> None:
    bus = Bus()
    bus.attach("statsd", StatsD.EVENTS, statsd)
    bus.execute(event, measurements, metadata)
    assert server.recv(1000).decode() == datagram
    bus.detach("statsd")


def test_an_unknown_cost_is_not_sent_as_zero(server: socket.socket, statsd: StatsD) -> None:
    statsd(names.COST, {"cost": None}, WHO)
    statsd(names.COST, {"cost": 7}, WHO)
    assert server.recv(1000).startswith(b"llm.cost:7|")


def test_a_server_that_is_away_costs_only_the_numbers(server: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    statsd = StatsD(*address)
    for _ in range(5):
        statsd(names.REQUEST_STOP, {"duration": 1}, WHO)
    statsd.close()
    statsd(names.REQUEST_STOP, {"duration": 1}, WHO)
    assert statsd.lost == 1
