"""How a call asks the actors it needs: again, if one of them dies over the question."""

from __future__ import annotations

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


async def answer_of(ref: sup.ActorRef, message: sup.Ask[R], future: Any) -> R:
    """The same for a message that has been sent already: `future` is its reply."""
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
