"""Reads a stream of OpenAI's chat format, in all its dialects.

The answer is whole when every choice has a finish reason, or when `[DONE]` came: some servers omit the one,
some the other. A stream that ends otherwise was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rubberduck.providers.model_names import asked_as
from rubberduck.providers.openai import dialects
from rubberduck.providers.reading import as_dict, as_list, as_name, as_text
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import Chunk, Delta, FinishReason, Head, Logprobs, ToolCallDelta, Usage

_NOTHING = Delta()
_MOST_CHOICES = 1024


@dataclass(slots=True)
class _ChoiceSoFar:
    tools: dialects.ToolFragments = field(default_factory=dialects.ToolFragments)
    sealed: dialects.Sealed | None = None
    role: str | None = None
    refused: bool = False
    begun: bool = False
    thinks: bool = False
    is_plain: bool = False
    """Whether it has begun, and its text is text from the first letter on."""
    finished: bool = False


class OpenAIStreamDecoder(StreamDecoder):
    """Turns `chat.completion.chunk` events into chunks, one for each choice that says something.

    The role comes with the first chunk that says more than it.
    """

    end_mark = "[DONE]"

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._choices: dict[int, _ChoiceSoFar] = {}
        self._id = ""
        self._model = ""
        self._with_sources: dict[str, Any] = {}
        self._has_annotations = False

    @property
    def is_whole(self) -> bool:
        return self.done or (bool(self._choices) and all(choice.finished for choice in self._choices.values()))

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        if said.get("usage") or "x_groq" in said:
            self.usage = dialects.usage_of(said) or self.usage
        if event == "error" or said.get("error") or said.get("object") == "error":
            raise self._reported(said)
        if "search_results" in said or "citations" in said:
            self._with_sources = said
        if not (self._id and self._model):
            self._id = self._id or as_text(said.get("id"))
            self._model = self._model or as_text(said.get("model"))
        return [
            chunk
            for choice in as_list(said.get("choices"))
            if isinstance(choice, dict) and (chunk := self._read_choice(choice)) is not None
        ]

    def _head(self, said: dict[str, Any]) -> Head:
        return dialects.head_of(said)

    def _read_choice(self, said: dict[str, Any]) -> Chunk | None:
        index = said.get("index")
        index = index if isinstance(index, int) and 0 <= index < _MOST_CHOICES else 0
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _ChoiceSoFar()
        told = as_dict(said.get("delta"))
        raw, logprobs = said.get("finish_reason"), said.get("logprobs")
        if choice.is_plain and raw is None and logprobs is None and len(told) == 1:  # nearly all chunks are such
            text = told.get("content")
            if isinstance(text, str) and text:
                return Chunk(index, Delta(text), None, None, None, self._id or None, self._model or None)
            if "tool_calls" in told and (calls := self._calls(told, choice)):
                return self._chunk(index, Delta("", None, calls))
        return self._read_any(index, choice, told, as_name(raw), dialects.logprobs_of(logprobs) if logprobs else None)

    def _read_any(
        self, index: int, choice: _ChoiceSoFar, told: dict[str, Any], raw: str | None, logprobs: Logprobs | None
    ) -> Chunk | None:
        delta = self._delta(told, choice)
        reason = None
        if raw is not None and not choice.finished:
            delta, reason = self._finished(delta, choice, raw)
        if delta == _NOTHING and reason is None and logprobs is None:
            return None  # a chunk that is handed on is a sign of progress
        if not choice.begun:
            choice.begun = True
            choice.is_plain = not choice.thinks
            delta = replace(delta, role=choice.role)
        return self._chunk(index, delta, reason, raw if reason else None, logprobs=logprobs)

    def _finished(self, delta: Delta, choice: _ChoiceSoFar, raw: str) -> tuple[Delta, FinishReason]:
        choice.finished = True
        native = choice.sealed.native(self._model) if choice.sealed is not None else None
        native = asked_as(native, self.asked)
        delta = replace(delta, tool_calls=delta.tool_calls + choice.tools.unsaid(), native=native)
        if self._with_sources and not self._has_annotations:
            self._has_annotations = True
            delta = replace(delta, annotations=dialects.sources_of(self._with_sources))
        return delta, dialects.finish_reason(raw, has_tools=bool(choice.tools), refused=choice.refused)

    def _delta(self, said: dict[str, Any], choice: _ChoiceSoFar) -> Delta:
        text, reasoning = dialects.content_of(said)
        if choice.thinks or "extra_content" in said:
            text = self._behind_thought(text, said, choice)
        refusal = as_text(said.get("refusal"))
        choice.refused = choice.refused or bool(refusal)
        choice.role = choice.role or as_name(said.get("role"))
        if "reasoning_details" in said:
            self._seal(choice).add(said)
        if said.get("annotations"):
            self._has_annotations = True
        return Delta(
            text,
            None,
            self._calls(said, choice),
            reasoning,
            refusal,
            dialects.annotations_of(said) if said.get("annotations") else (),
            dialects.audio_of(said) if said.get("audio") else None,
        )

    @staticmethod
    def _behind_thought(text: str, said: dict[str, Any], choice: _ChoiceSoFar) -> str:
        """The text without the mark that ends the reasoning before it (Gemini)."""
        thought, choice.thinks = choice.thinks, dialects.is_thought(said) and not text
        choice.is_plain = choice.begun and not choice.thinks
        return text.removeprefix(dialects.END_OF_THOUGHT) if thought else text

    def _calls(self, said: dict[str, Any], choice: _ChoiceSoFar) -> tuple[ToolCallDelta, ...]:
        return tuple([self._call(fragment, choice) for fragment in dialects.tool_calls_of(said)])

    def _call(self, fragment: dict[str, Any], choice: _ChoiceSoFar) -> ToolCallDelta:
        delta = choice.tools.add(fragment, self._id)
        if isinstance(fragment.get("extra_content"), dict):
            self._seal(choice).add_call(choice.tools.latest_id, fragment)
        return delta

    @staticmethod
    def _seal(choice: _ChoiceSoFar) -> dialects.Sealed:
        if choice.sealed is None:
            choice.sealed = dialects.Sealed()
        return choice.sealed

    def _finish(self) -> list[Chunk]:
        if not self._choices:
            raise self._nonsense("the stream holds no answer")
        self.done = True
        chunks = [
            self._chunk(index, self._finished(_NOTHING, choice, "")[0], FinishReason.UNKNOWN)
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
        logprobs: Logprobs | None = None,
    ) -> Chunk:
        return Chunk(index, delta, reason, usage, raw, self._id or None, self._model or None, logprobs)
