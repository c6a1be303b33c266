"""A child that waits for its own supervisor, which waits for the child: an error at once, no time limit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from tree_rig import Obedient, ObedientThread

import supervision as sup

pytestmark = pytest.mark.timeout(15)


def waits_for(call: Callable[[], Any], host: type[Any]) -> Callable[[Any], Any]:
    """A hook or message that waits for the future which `call` returns, each host in its own way."""

    async def awaits(_actor: Any) -> Any:
        return await call()

    def blocks(_actor: Any) -> Any:
        return call().get()

    return awaits if host is Obedient else blocks


def test_a_starting_child_that_waits_for_its_starting_supervisor_is_told_of_the_circle(
    system: sup.System, obedient: Any
) -> None:
    def call() -> Any:
        return system.names.known("root").ref.start_child(sup.ChildSpec("more", Obedient))

    with pytest.raises(sup.StartFailedError, match="DeadlockError: root/it waits for root waits for root/it"):
        system.supervise(sup.ChildSpec("it", obedient, kwargs={"on_start": waits_for(call, obedient)}))


def test_the_circle_is_seen_through_several_supervisors_and_through_a_sibling(
    system: sup.System, obedient: Any
) -> None:
    def call() -> Any:
        return system.names.known("root").ref.which_children()

    def ask_sibling() -> Any:
        return system.names.known("root/mid/helper").ref.ask(waits_for(call, Obedient), block=False)

    with pytest.raises(sup.StartFailedError, match="DeadlockError"):
        system.supervise(
            sup.supervisor(
                "mid",
                sup.ChildSpec("helper", Obedient, expected_errors=(sup.DeadlockError,), shutdown=0.1),
                sup.ChildSpec("it", obedient, kwargs={"on_start": waits_for(ask_sibling, obedient)}),
            )
        )


def test_a_child_that_was_started_may_ask_the_supervisor_while_a_later_one_starts(
    system: sup.System, gate: Any, obedient: Any, eventually: Any
) -> None:
    """It waits for the later one, which does not wait for it."""

    def later(_actor: Any) -> None:
        gate.wait(10)

    starting = threading.Thread(
        target=system.supervise,
        args=(sup.ChildSpec("first", obedient), sup.ChildSpec("slow", ObedientThread, kwargs={"on_start": later})),
    )
    starting.start()
    ref = eventually(lambda: (known := system.names.known("root/first")) and known.ref)
    count = ref.ask(waits_for(lambda: system.names.known("root").ref.count_children(), obedient), block=False)
    eventually(lambda: system.names.known("root/slow") is not None)
    gate.set()
    assert count.get(timeout=30).specs == 2
    starting.join(30)


def test_on_start_may_wait_for_calls_to_a_supervisor_that_runs(system: sup.System, obedient: Any) -> None:
    handle = system.supervise()
    hook = waits_for(lambda: handle.start_child(sup.ChildSpec("more", Obedient)), obedient)
    started = handle.start_child(sup.ChildSpec("it", obedient, kwargs={"on_start": hook})).get(timeout=30)
    assert isinstance(started, sup.Started)
    assert started.info == sup.Started(system.whereis("more"))


@pytest.mark.parametrize("path", ["it", "mid/it"])
def test_who_waits_for_its_own_termination_is_told_so(system: sup.System, obedient: Any, path: str) -> None:
    """Or for that of the supervisor above it: both would end when the time for the child's end is over."""
    child = sup.ChildSpec("it", obedient, restart="temporary")
    top = path.split("/")[0]
    handle = system.supervise(child if top == "it" else sup.supervisor("mid", child))
    with pytest.raises(sup.DeadlockError, match=f"root/{path} waits for root/{path}"):
        system.whereis(path).ask(waits_for(lambda: handle.terminate_child(top), obedient), timeout=30)


def test_who_does_not_wait_for_its_own_termination_ends_in_order(system: sup.System, obedient: Any) -> None:
    handle = system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    assert ref.ask(lambda actor: bool(handle.terminate_child("it")), timeout=30) is True
    assert handle.terminate_child("it").get(timeout=30) == sup.Ok()
    assert isinstance(ref.name.last_exit.reason, sup.Shutdown)


def test_a_sibling_may_wait_for_a_termination(system: sup.System, obedient: Any) -> None:
    handle = system.supervise(sup.ChildSpec("it", obedient), sup.ChildSpec("it2", obedient))
    terminated = system.whereis("it2").ask(waits_for(lambda: handle.terminate_child("it"), obedient), timeout=30)
    assert terminated == sup.Ok()
