"""What becomes of a stream that breaks: as a configuration says it, and as one call may say it otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rubberduck.config.scalars import DAY, UNITS_S, _refused, _Scalar, as_text, seconds
from rubberduck.config.sections import Section
from rubberduck.core.release import POLICIES, StreamPolicy
from rubberduck.core.shown import shown

_TOKENS = re.compile(r"(\d{1,9}) ?tokens?", re.ASCII)
_UNTIL = 'is "end", a duration with its unit such as "2s", or a number of tokens such as "20 tokens"'
_POLICY = 'is "error", "buffer", "continue", or {"buffer": until}, where until '


@dataclass(frozen=True)
class Until(_Scalar):
    """How much of an answer is held back: all of it, a time, or a number of tokens; kept as text."""

    def read(self, value: Any) -> str:
        try:
            policy = held_until(value)
        except ValueError as error:
            raise _refused(str(error)) from None
        if policy.tokens is not None:
            return f"{policy.tokens:g} tokens"
        return "end" if policy.seconds is None else as_text(policy.seconds)

    def json_schema(self) -> dict[str, Any]:
        counted = {"type": "object", "properties": {"tokens": {"type": "integer", "minimum": 1}}}
        return {"description": _UNTIL, "anyOf": [{"type": "string"}, counted]}


class StreamConfig(Section):
    """What becomes of a stream that breaks after its reader could have seen a part of it; a call may choose otherwise.

    `policy` "error" raises StreamInterrupted. "buffer" holds the answer back until `buffer_until` ("end", "2s" after
    its first output, "20 tokens"), so that until then another route can answer in its place. "continue" has another
    route go on where the answer broke off.
    """

    policy: Literal["error", "buffer", "continue"] = "error"
    buffer_until: Annotated[str, Until()] = "end"

    def read(self, told: Any) -> StreamPolicy:
        """The policy of a call that says `told`; None leaves it to the configuration. Raises ValueError."""
        if told is None:
            told = self.policy
        if isinstance(told, Mapping) and set(told) == {"buffer"}:
            return held_until(told["buffer"])
        if not isinstance(told, str) or told not in POLICIES:
            raise ValueError(f"{_POLICY}{_UNTIL}; not {shown(told)}")
        return held_until(self.buffer_until) if told == "buffer" else StreamPolicy(told)


def held_until(value: Any) -> StreamPolicy:
    """The policy that holds an answer back until `value`. Raises ValueError."""
    if isinstance(value, str) and value == "end":
        return StreamPolicy("buffer")
    if isinstance(value, str) and (counted := _TOKENS.fullmatch(value.strip())):
        value = {"tokens": int(counted[1])}
    if isinstance(value, Mapping) and set(value) == {"tokens"}:
        tokens = value["tokens"]
        if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 < tokens <= 1_000_000_000:
            return StreamPolicy("buffer", tokens=tokens)
    elif isinstance(value, str) and value.strip().endswith(tuple(UNITS_S)):
        # Without its unit a number could be tokens, milliseconds or seconds.
        length = seconds(value)
        if 0 < length <= DAY:
            return StreamPolicy("buffer", seconds=length)
    raise ValueError(f"{_UNTIL}; not {shown(value)}")
