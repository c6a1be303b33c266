"""Reads a stream of OpenAI's chat format, in all its dialects.

The answer is whole when every choice has a finish reason, or when `[DONE]` came: some servers omit the one,
some the other. A stream that ends otherwise was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rubberduck.providers import dialects
from rubberduck.providers.reading import as_dict, as_list, as_name, as_text
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import Chunk, Delta, FinishReason, Usage

_NOTHING = Delta()
_MOST_CHOICES = 1024


@dataclass(slots=True)
class _ChoiceSoFar:
    tools: dialects.ToolFragments = field(default_factory=dialects.ToolFragments)
    role: str | None = None
    refused: bool = False
    begun: bool = False
    finished: bool = False


class OpenAIStreamDecoder(StreamDecoder):
    """Turns `chat.completion.chunk` events into chunks, one for each choice that says something.

    The role comes with the first chunk that says more than it.
    """

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._choices: dict[int, _ChoiceSoFar] = {}
        self._id = ""
        self._model = ""

    @property
    def is_whole(self) -> bool:
        return self.done or (bool(self._choices) and all(choice.finished for choice in self._choices.values()))

    def _is_end_mark(self, data: str) -> bool:
        return data == "[DONE]"

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        self.usage = dialects.usage_of(said) or self.usage
        if said.get("error") or event == "error" or said.get("object") == "error":
            raise self._reported(said)
        self._id = self._id or as_text(said.get("id"))
        self._model = self._model or as_text(said.get("model"))
        choices = [choice for choice in as_list(said.get("choices")) if isinstance(choice, dict)]
        return [chunk for choice in choices if (chunk := self._read_choice(choice)) is not None]

    def _read_choice(self, said: dict[str, Any]) -> Chunk | None:
        index = said.get("index")
        index = index if isinstance(index, int) and 0 <= index < _MOST_CHOICES else 0
        choice = self._choices.setdefault(index, _ChoiceSoFar())
        delta = self._delta(as_dict(said.get("delta")), choice)
        raw = as_name(said.get("finish_reason"))
        reason = None
        if raw is not None and not choice.finished:
            choice.finished = True
            delta = replace(delta, tool_calls=delta.tool_calls + choice.tools.unsaid())
            reason = dialects.finish_reason(raw, has_tools=bool(choice.tools), refused=choice.refused)
        if delta == _NOTHING and reason is None:
            return None  # a chunk that is handed on is a sign of progress
        if not choice.begun:
            choice.begun = True
            delta = replace(delta, role=choice.role)
        return self._chunk(index, delta, reason, raw if reason else None)

    def _delta(self, said: dict[str, Any], choice: _ChoiceSoFar) -> Delta:
        text, reasoning = dialects.content_of(said)
        refusal = as_text(said.get("refusal"))
        choice.refused = choice.refused or bool(refusal)
        choice.role = choice.role or as_name(said.get("role"))
        calls = tuple(choice.tools.add(fragment, self._id) for fragment in dialects.tool_calls_of(said))
        return Delta(text, None, calls, reasoning, refusal)

    def _finish(self) -> list[Chunk]:
        if not self._choices:
            raise self._nonsense("the stream holds no answer")
        self.done = True
        chunks = [
            self._chunk(index, Delta(tool_calls=choice.tools.unsaid()), FinishReason.UNKNOWN)
            for index, choice in self._choices.items()
            if not choice.finished
        ]
        return chunks + ([self._chunk(0, Delta(), usage=self.usage)] if self.usage else [])

    def _chunk(
        self,
        index: int,
        delta: Delta,
        reason: FinishReason | None = None,
        raw: str | None = None,
        usage: Usage | None = None,
    ) -> Chunk:
        return Chunk(index, delta, reason, usage, raw, self._id or None, self._model or None)
