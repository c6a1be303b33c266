"""An answer that is wanted as a value of a type: read, checked, and mended once where that is wished.

What does not fit is sent back with a word on what is wrong with it, in a further round of the same call: the same
deadline, the same money, and both answers on the bill.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

from rubberduck import structured
from rubberduck.actors.calls.call import Call
from rubberduck.actors.calls.course import Course
from rubberduck.actors.calls.race import Answer
from rubberduck.actors.calls.usages import together
from rubberduck.errors import InvalidRequest, OutputInvalid, RubberDuckError
from rubberduck.types import Choice, Request, Response, Usage
from rubberduck.wakers import Waker

T = TypeVar("T")


class Output:
    """The type of which one call wants a value. `repairs`: the model may mend its answer once."""

    __slots__ = ("_read", "model", "repairs")

    def __init__(self, model: Any, *, repairs: bool = False) -> None:
        self.model = model
        self.repairs = repairs
        self._read: tuple[tuple[Choice, ...], Any] | None = None

    async def ask_in(self, call: Call) -> None:
        """Have a call's request ask for a value of the type, if it does not yet.

        Schemas are remembered. To make one runs the type's own code, which may take its time: that is the call's alone.

        Raises:
            InvalidRequest: JSON has no schema for it.
        """
        request = call.request
        assert isinstance(request, Request)
        if request.response_format is None:  # else it is asked for others, who share the answer
            schema = structured.known_schema_of(self.model) or await _apart(structured.schema_of, self.model)
            call.request = request.model_copy(update={"response_format": schema})

    @property
    def key(self) -> str:
        """The same for all that want the same in the same way."""
        return f"{id(self.model)} {self.repairs}"

    async def read(self, response: Response) -> Any:
        """The answer as a value; read once, also where it is asked for again.

        In a thread, for a type's validators are other people's code.

        Raises:
            OutputInvalid: it is no such value.
            InvalidRequest: the type's own code failed over it.
        """
        if self._read is None or self._read[0] is not response.choices:
            try:
                value = await asyncio.to_thread(structured.read, self.model, response)
            except RubberDuckError:
                raise
            except Exception as error:  # a validator's bug: it is neither the model's nor ours
                told = f"response_model: its own code failed: {type(error).__name__}: {error}"
                raise InvalidRequest(told, field="response_model") from error
            self._read = (response.choices, value)
        return self._read[1]

    async def fits(self, response: Response) -> bool:
        """Whether the answer can be read."""
        try:
            await self.read(response)
        except (OutputInvalid, InvalidRequest):
            return False
        return True


async def _apart(work: Callable[[Any], T], subject: Any) -> T:
    """`work(subject)` in a thread of its own: of those that are shared, a few slow types would take all."""
    loop, ended = asyncio.get_running_loop(), list[tuple[T | None, BaseException | None]]()
    waker = Waker(loop, loop.create_future())

    def run() -> None:
        try:
            ended.append((work(subject), None))
        except BaseException as error:  # noqa: BLE001  (it is the call's, on whichever thread)
            ended.append((None, error))
        waker.wake()

    threading.Thread(target=run, name="rubberduck-schema", daemon=True).start()
    await waker.future
    made, error = ended[0]
    if error is not None:
        raise error
    return cast("T", made)


class OutputCourse(Course):
    """The way of a call whose answer is to be read."""

    __slots__ = ()

    async def _rounds(self) -> Answer:
        output = self._call.output
        assert output is not None
        first = await self._whole()
        try:
            await output.read(first)
        except OutputInvalid as error:
            if not (output.repairs and error.retryable):
                raise
            return await self._mended(first, error)
        return first, first.usage

    async def _mended(self, first: Response, fault: OutputInvalid) -> Answer:
        call, output = self._call, self._call.output
        assert output is not None
        assert isinstance(call.request, Request)
        call.request = structured.repair_request(call.request, first, fault)
        call.amounts = await self._estimate()
        if call.money is not None:
            call.money.begin_round()
        try:
            second = await self._whole()
        except RubberDuckError as error:
            error.__cause__ = error.__cause__ or fault
            raise
        await output.read(second)
        usage: Usage = together([first.usage, second.usage])
        return replace(second, usage=usage), usage

    async def _whole(self) -> Response:
        """The answer of a round, with what it has cost."""
        given, usage = await self._round()
        assert isinstance(given, Response)
        return replace(given, usage=usage, attempts=tuple(self._call.attempts), request_id=self._call.id)
