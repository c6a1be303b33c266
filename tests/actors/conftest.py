"""One component actor at a time, in a system of its own on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import supervision as sup
from supervision.testing import ManualClock

StartActor = Callable[..., Any]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def start_actor(clock: ManualClock) -> Iterator[StartActor]:
    """`start_actor(actor_class, *args, **kwargs)`: its ref, under a supervisor that restarts it as often as needed."""
    with sup.System("components", clock=clock) as system:

        def start(actor_class: type, *args: Any, **kwargs: Any) -> Any:
            spec = sup.ChildSpec("it", actor_class, args=args, kwargs=kwargs, mailbox=sup.Mailbox(redeliver=3))
            system.supervise(spec, max_restarts=1000, max_seconds=1)
            return system.whereis("it")

        yield start


@pytest.fixture
def kill(eventually: Callable[..., Any]) -> Callable[[Any], None]:
    """`kill(ref)`: end the present incarnation and wait for the next one."""

    def end(ref: Any) -> None:
        restarts = ref.name.restarts
        ref.name.system.kill(ref)
        eventually(lambda: ref.name.restarts > restarts and ref.name.incarnation is not None)

    return end
