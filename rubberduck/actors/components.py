"""How a call asks the actors it needs: again, if one of them dies over the question."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import supervision as sup
from rubberduck.errors import CallInterrupted, RubberDuckError

R = TypeVar("R")

MOST_ASKED = 20
"""So many incarnations may die over one question before it is given up: then the question is the cause."""

OnFailure = Callable[[RubberDuckError], object]


async def ask(
    ref: sup.ActorRef,
    message: sup.Ask[R],
    *,
    give_back: Callable[[R], object] | None = None,
    first: sup.AskFuture[R] | None = None,
) -> R:
    """The answer of whichever incarnation gives one. All messages to components may be handled twice.

    `first` is what the question has been given to already.

    `give_back` is called with an answer that comes although this task was cancelled, and so will never be used; it
    may be called on any thread.

    Raises:
        RubberDuckError: the component's own answer, or CallInterrupted if it is gone for good.
    """
    died: Exception | None = None
    for _ in range(MOST_ASKED):
        future, first = first or ref.ask(message, block=False), None
        try:
            answer: R = await future
            return answer
        except RubberDuckError:
            raise
        except asyncio.CancelledError:
            if give_back is not None:
                future.on_done(functools.partial(_hand_back, future, give_back))
            raise
        except Exception as error:  # noqa: BLE001  (the crash that took the question with it)
            died = error
        if not ref.is_alive():
            break
    raise _gone(ref, died)


async def see_through(
    ref: sup.ActorRef, message: sup.Ask[Any], on_failure: OnFailure, *, first: sup.AskFuture[Any] | None = None
) -> None:
    """Give an order and wait until it is carried out, also if this task is cancelled meanwhile.

    `first` is what the order has been given to already.

    What was taken is given back in any case: a cancellation is raised only after that.
    """
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            await ask(ref, message, first=first)
        except asyncio.CancelledError as error:
            cancelled, first = error, None  # the message went with the wait for its answer: give the order again
            continue
        except RubberDuckError as failure:
            on_failure(failure)
        if cancelled is not None:
            raise cancelled
        return


def deliver(ref: sup.ActorRef, message: sup.Ask[Any], on_failure: OnFailure, *, left: int = MOST_ASKED) -> None:
    """Give an order that is carried out before whatever the same actor is asked later; nobody waits for it.

    It is given again if the actor dies over it. `on_failure` may be called on any thread.
    """
    future = ref.ask(message, block=False)
    future.on_done(functools.partial(_look_at, future, ref, message, on_failure, left - 1))


def _hand_back(future: Any, give_back: Callable[[Any], object]) -> None:
    with contextlib.suppress(Exception):  # no answer, so nothing to give back
        give_back(future.get(timeout=0))


def _look_at(future: Any, ref: sup.ActorRef, message: sup.Ask[Any], on_failure: OnFailure, left: int) -> None:
    """The order was carried out, refused, or lost with who was to carry it out."""
    try:
        future.get(timeout=0)
    except RubberDuckError as failure:
        on_failure(failure)
    except Exception as error:  # noqa: BLE001  (the crash that took the order with it)
        if left and ref.is_alive():
            deliver(ref, message, on_failure, left=left)
        else:
            on_failure(_gone(ref, error))


def _gone(ref: sup.ActorRef, died: Exception | None) -> CallInterrupted:
    error = CallInterrupted(f"{ref.path} could not answer: {died}")
    error.__cause__ = died
    return error
