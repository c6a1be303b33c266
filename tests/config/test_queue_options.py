"""The queue's options: how they are written, and what they become for the queue."""

from __future__ import annotations

from typing import Any

import pytest

from rubberduck.actors.tree import _queue_options
from rubberduck.config import Config
from rubberduck.core.request_queue import QueueOptions
from rubberduck.errors import ConfigError


def load(**queue: Any) -> Config:
    return Config.load({"providers": {"mock": {"module": "mock"}}, "queue": queue}, environ={})


def test_without_any_option_the_queue_has_its_own_defaults() -> None:
    assert _queue_options(load()) == QueueOptions()


def test_every_option_reaches_the_queue() -> None:
    told = load(
        when_full="evict_lower",
        max_per_class={"low": 5},
        max_per_tenant=7,
        max_tokens=900,
        weights={"high": 30},
        tenants={"gold": 3, "trial": 0.5},
        adaptive_lifo={"low": "60s", "normal": 500},
        service_quantile=0.95,
    )
    assert _queue_options(told) == QueueOptions(
        max_per_class={"low": 5},
        max_per_tenant=7,
        max_tokens=900,
        when_full="evict_lower",
        weights={"high": 30, "normal": 2, "low": 1},
        tenants={"gold": 3.0, "trial": 0.5},
        adaptive_lifo={"low": 60.0, "normal": 0.5},
        service_quantile=0.95,
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"tenants": {"gold": 0}}, "queue.tenants.gold"),
        ({"tenants": {"gold": float("nan")}}, "queue.tenants.gold"),
        ({"adaptive_lifo": {"urgent": 1}}, "queue.adaptive_lifo.urgent"),
        ({"adaptive_lifo": {"low": "soon"}}, "queue.adaptive_lifo.low"),
        ({"service_quantile": 1}, "queue.service_quantile"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(**wrong)
