"""How a broken answer is continued: what is sent as its beginning, and what is left out of what comes back.

A model goes on where the text before it ends. Where that text ended in white space, which may not be sent, the model
often writes it once more. And some servers, beside the continuation, send what they were given: an answer that begins
with the whole of it, letter by letter, is taken for such an echo and loses it. A shorter likeness is left as it is, for
it may be what the model wants to say.
"""

from __future__ import annotations

SHORTEST_ECHO = 4
"""Letters below which a repeated beginning is no sign of an echo: "ha" goes on with "ha"."""


def prefill(text: str) -> str:
    """The beginning of an answer as it can be sent: Anthropic refuses one that ends in white space."""
    return text.rstrip()


class Splice:
    """Joins a continuation to the text that has been delivered. Feed it piece by piece, then `rest`."""

    __slots__ = ("_begun", "_gap", "_held", "_may_echo")

    def __init__(self, delivered: str) -> None:
        self._begun = prefill(delivered)
        self._gap = delivered[len(self._begun) :]
        self._held = ""
        self._may_echo = len(self._begun) >= SHORTEST_ECHO

    def feed(self, text: str) -> str:
        """What the reader gets of a piece, and of those before it that it decides about."""
        if not self._may_echo and not self._gap:
            return text
        self._held += text
        if self._may_echo:
            if len(self._held) < len(self._begun) and self._begun.startswith(self._held):
                return ""
            self._may_echo = False
            self._held = self._held.removeprefix(self._begun)
        if len(self._held) < len(self._gap) and self._gap.startswith(self._held):
            return ""
        return self._let_go()

    def rest(self) -> str:
        """What was still undecided when the continuation ended: too short to be told from what it resembles."""
        self._may_echo = False
        return self._let_go()

    def _let_go(self) -> str:
        held, gap = self._held, self._gap
        self._held = self._gap = ""
        same = 0
        while same < min(len(held), len(gap)) and held[same] == gap[same]:
            same += 1
        return held[same:]
