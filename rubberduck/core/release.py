"""What to do about a stream that breaks, and when the first of an answer may go to its reader.

As long as nothing has gone, a break is ordinary failover: another attempt, and nobody has seen the first. What is held
back to that end reaches the reader late. The three policies are three answers to how much that is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PolicyName = Literal["error", "buffer", "continue"]
POLICIES: tuple[PolicyName, ...] = ("error", "buffer", "continue")


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """How one call's stream meets a break.

    "error" hands on at once and raises at a break. "buffer" hands nothing on before about `tokens` of the answer have
    come, or `seconds` of it since its first one, or, with neither, its end; afterwards it is as "error". "continue"
    hands on at once and has another route go on where the first broke off.
    """

    name: PolicyName = "error"
    tokens: float | None = None
    seconds: float | None = None

    @property
    def holds_back(self) -> bool:
        return self.name == "buffer"

    @property
    def continues(self) -> bool:
        return self.name == "continue"


class Release:
    """Says for one attempt's answer from which chunk on it may go. A further attempt begins a new one.

    Time counts from the first output, as every attempt has to begin, and is looked at when something comes: an answer
    that falls silent just then can still be replaced.
    """

    __slots__ = ("_policy", "_since", "_tokens")

    def __init__(self, policy: StreamPolicy) -> None:
        self._policy = policy
        self._since: float | None = None
        self._tokens = 0.0

    def allows(self, tokens: float, now: float) -> bool:
        """A chunk of about `tokens` has come: whether it and all before it may go."""
        self._tokens += tokens
        if self._since is None:
            self._since = now
        policy = self._policy
        if policy.tokens is not None:
            return self._tokens >= policy.tokens
        return policy.seconds is not None and now - self._since >= policy.seconds
