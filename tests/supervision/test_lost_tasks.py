"""Tasks that go on although their supervisor has ended: whoever began them hears of it and can see to the rest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import supervision as sup


class Lost:
    """What `on_lost` was told."""

    def __init__(self, answer: Any = None) -> None:
        self.reasons: list[sup.Reason] = []
        self._answer = answer

    def __call__(self, reply: sup.Reply, reason: sup.Reason) -> None:
        self.reasons.append(reason)
        if self._answer is not None:
            reply.set(self._answer)


def system_of_tasks(**options: Any) -> tuple[sup.System, Any]:
    system = sup.System("test", loop_limit=0.2, **options)
    system.supervise(sup.tasks("tasks"))
    return system, system.whereis("tasks")


def test_who_began_a_task_that_blocks_the_loop_may_answer_for_it(eventually: Callable[..., Any]) -> None:
    gate, lost = threading.Event(), Lost("answered by others")

    async def block(reply: sup.Reply) -> None:
        gate.wait(20)
        reply.set("too late") if not reply.is_used else None

    system, tasks = system_of_tasks()
    try:
        asked = tasks.ask(sup.RunTask(block, takes_reply=True, on_lost=lost), block=False)
        assert asked.get(timeout=10) == "answered by others"
        assert lost.reasons == [sup.Abandoned("scheduler")]
    finally:
        gate.set()
        eventually(lambda: not system.unstopped_report())
        assert system.stop()


def test_it_hears_of_a_task_whose_reply_has_been_given_already(eventually: Callable[..., Any]) -> None:
    gate, lost = threading.Event(), Lost()

    async def answer_and_block(reply: sup.Reply) -> None:
        reply.set("answered")
        gate.wait(20)

    system, tasks = system_of_tasks()
    try:
        asked = tasks.ask(sup.RunTask(answer_and_block, takes_reply=True, on_lost=lost), block=False)
        assert asked.get(timeout=10) == "answered"
        eventually(lambda: lost.reasons == [sup.Abandoned("scheduler")])
    finally:
        gate.set()
        eventually(lambda: not system.unstopped_report())
        assert system.stop()


@pytest.mark.parametrize("is_killed", [True, False])
def test_it_hears_nothing_of_a_task_that_ends_by_its_cancellation(is_killed: bool) -> None:
    lost, has_begun = Lost(), threading.Event()

    async def wait() -> None:
        has_begun.set()
        await asyncio.sleep(60)

    system, tasks = system_of_tasks()
    asked = tasks.ask(sup.RunTask(wait, on_lost=lost), block=False)
    assert has_begun.wait(30)
    if is_killed:
        system.kill(tasks)
    assert system.stop()
    with pytest.raises(sup.ActorDeadError):
        asked.get(timeout=30)
    assert lost.reasons == []


def test_one_that_fails_keeps_nobody_else_from_being_answered(eventually: Callable[..., Any]) -> None:
    gate = threading.Event()

    def fail(reply: sup.Reply, reason: sup.Reason) -> None:
        raise ValueError("no")

    async def block() -> None:
        gate.wait(20)

    async def wait() -> None:
        await asyncio.sleep(60)

    system, tasks = system_of_tasks()
    try:
        calls = [tasks.ask(sup.RunTask(each, on_lost=fail), block=False) for each in (wait, wait, block)]
        for call in calls:
            with pytest.raises(sup.ActorDeadError):
                call.get(timeout=10)
    finally:
        gate.set()
        eventually(lambda: not system.unstopped_report())
        assert system.stop()
