"""How a call asks the actors it needs: again, if one of them dies over the question."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import supervision as sup
from rubberduck.errors import CallInterrupted, RubberDuckError

R = TypeVar("R")

MOST_ASKED = 20
"""So many incarnations may die over one question before it is given up: then the question is the cause."""


async def ask(ref: sup.ActorRef, message: sup.Ask[R]) -> R:
    """The answer of whichever incarnation gives one. All messages to components may be handled twice.

    Raises:
        RubberDuckError: the component's own answer, or CallInterrupted if it is gone for good.
    """
    return await answer_of(ref, message, ref.ask(message, block=False))


async def see_through(
    orders: Sequence[tuple[sup.ActorRef, sup.Ask[Any]]], on_failure: Callable[[RubberDuckError], object]
) -> None:
    """Give all orders at once and wait for all answers, also if this task is cancelled meanwhile.

    What was taken is given back in any case: a cancellation is raised only after that.
    """
    pending = [(ref, message, ref.ask(message, block=False)) for ref, message in orders]
    cancelled: asyncio.CancelledError | None = None
    for ref, message, sent in pending:
        future = sent
        while True:
            try:
                await answer_of(ref, message, future)
            except asyncio.CancelledError as error:
                # The message went with the wait for its answer: give the order again.
                cancelled, future = error, ref.ask(message, block=False)
                continue
            except RubberDuckError as failure:
                on_failure(failure)
            break
    if cancelled is not None:
        raise cancelled


async def answer_of(ref: sup.ActorRef, message: sup.Ask[R], future: Any) -> R:
    """As `ask`, for a message that has been sent already: `future` is its reply."""
    died: BaseException | None = None
    for _ in range(MOST_ASKED):
        try:
            answer: R = await future
            return answer
        except RubberDuckError:
            raise
        except Exception as error:  # noqa: BLE001  (the crash that took the question with it)
            died = error
        if not ref.is_alive():
            break
        future = ref.ask(message, block=False)
    raise CallInterrupted(f"{ref.path} could not answer: {died}") from died
