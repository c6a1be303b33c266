"""Puts the chunks of a stream together into the answer that they are parts of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from rubberduck.types import (
    Annotation,
    Audio,
    Choice,
    Chunk,
    Delta,
    FinishReason,
    FunctionCall,
    Head,
    Logprobs,
    Message,
    Native,
    Response,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_NO_HEAD = Head()


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    type: Literal["function", "custom"] = "function"


@dataclass(slots=True)
class _Answer:
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    stop_sequence: str | None = None
    annotations: tuple[Annotation, ...] = ()
    audio: list[Audio] = field(default_factory=list)
    logprobs: Logprobs | None = None
    native: Native | None = None

    def add(self, chunk: Chunk) -> int:
        """Take a chunk in; how many letters it brought."""
        delta = chunk.delta
        size = len(delta.content) + len(delta.reasoning) + len(delta.refusal)
        if delta.content:
            self.content.append(delta.content)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        if delta.refusal:
            self.refusal.append(delta.refusal)
        for fragment in delta.tool_calls:
            call = self.calls.setdefault(fragment.index, _Call())
            call.id = call.id or fragment.id or ""
            call.name = call.name or fragment.name or ""
            if fragment.type != "function":
                call.type = fragment.type
            call.arguments.append(fragment.arguments)
            size += len(fragment.arguments)
        if chunk.finish_reason is not None:
            self.finish_reason, self.raw_finish_reason = chunk.finish_reason, chunk.raw_finish_reason
            self.stop_sequence = chunk.stop_sequence
        return size + self._add_rare(chunk)

    def _add_rare(self, chunk: Chunk) -> int:
        """What few chunks bring; how many letters of it."""
        delta = chunk.delta
        if delta.annotations:
            self.annotations += delta.annotations
        if chunk.logprobs is not None:
            self.logprobs = chunk.logprobs if self.logprobs is None else self.logprobs + chunk.logprobs
        if delta.native is not None:
            self.native = delta.native
        if delta.audio is None:
            return 0
        self.audio.append(delta.audio)
        return len(delta.audio.data) + len(delta.audio.transcript)

    def message(self) -> Message:
        text, refusal, reasoning = "".join(self.content), "".join(self.refusal), "".join(self.reasoning)
        return Message(
            role="assistant",
            content=text if text or not (self.calls or refusal) else None,
            tool_calls=tuple(
                ToolCall(
                    id=call.id,
                    type=call.type,
                    function=FunctionCall(name=call.name, arguments="".join(call.arguments)),
                )
                for _, call in sorted(self.calls.items())
            ),
            refusal=refusal or None,
            reasoning=reasoning or None,
            annotations=self.annotations,
            audio=_joined(self.audio) if self.audio else None,
            native=self.native,
        )

    def choice(self, index: int) -> Choice:
        return Choice(
            index,
            self.message(),
            self.finish_reason or FinishReason.UNKNOWN,
            self.raw_finish_reason,
            self.stop_sequence,
            self.logprobs,
        )


def _joined(pieces: list[Audio]) -> Audio:
    return Audio(
        id=next((piece.id for piece in pieces if piece.id), ""),
        data="".join(piece.data for piece in pieces),
        transcript="".join(piece.transcript for piece in pieces),
        expires_at=next((piece.expires_at for piece in pieces if piece.expires_at is not None), None),
    )


class Assembly:
    """The answer so far. Add each chunk as it comes; ask at any time. `size` is how many letters were written."""

    def __init__(self) -> None:
        self._answers: dict[int, _Answer] = {}
        self._id = ""
        self._model = ""
        self._head = _NO_HEAD
        self.usage: Usage | None = None
        self.has_output = False
        self.size = 0

    def add(self, chunk: Chunk) -> None:
        """Count a chunk in."""
        answer = self._answers.get(chunk.index)
        if answer is None:  # no `setdefault`, which would make a new one for each chunk
            answer = self._answers[chunk.index] = _Answer()
        size = answer.add(chunk)
        self.size += size
        self._id = self._id or chunk.id or ""
        self._model = self._model or chunk.model or ""
        if chunk.head is not None:
            self._head = chunk.head
        self.usage = chunk.usage or self.usage
        self.has_output = self.has_output or bool(size or chunk.delta.tool_calls or chunk.finish_reason)

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        first = self._answers.get(0)
        return "".join(first.content) if first else ""

    @property
    def written(self) -> str:
        """Everything that the model wrote so far, in all choices, for counting."""
        return "".join(
            piece
            for answer in self._answers.values()
            for pieces in (
                answer.reasoning,
                answer.content,
                answer.refusal,
                *(c.arguments for c in answer.calls.values()),
            )
            for piece in pieces
        )

    def response(self, *, provider: str = "", model: str = "") -> Response:
        """The answer as one that was not streamed. `model` stands in where no chunk named one."""
        usage, head = self.usage or Usage(estimated=True), self._head
        return Response(
            id=self._id,
            model=self._model or model,
            choices=tuple(answer.choice(index) for index, answer in sorted(self._answers.items())),
            usage=usage,
            created=head.created,
            provider=provider,
            warnings=head.warnings,
            service_tier=usage.service_tier or head.service_tier,
            system_fingerprint=head.system_fingerprint,
        )


def as_chunks(response: Response) -> list[Chunk]:
    """An answer that came whole, as the chunks of a stream: one for each choice, then the usage."""
    chunks = [
        Chunk(
            index=choice.index,
            delta=Delta(
                content=choice.message.text,
                role="assistant",
                tool_calls=tuple(
                    ToolCallDelta(number, call.id, call.function.name, call.function.arguments, call.type)
                    for number, call in enumerate(choice.message.tool_calls)
                ),
                reasoning=choice.message.reasoning or "",
                refusal=choice.message.refusal or "",
                annotations=choice.message.annotations,
                audio=choice.message.audio,
                native=choice.message.native,
            ),
            finish_reason=choice.finish_reason,
            raw_finish_reason=choice.raw_finish_reason,
            id=response.id or None,
            model=response.model or None,
            logprobs=choice.logprobs,
            stop_sequence=choice.stop_sequence,
        )
        for choice in response.choices
    ]
    if chunks:
        head = Head(response.created, response.service_tier, response.system_fingerprint, response.warnings)
        chunks[0] = replace(chunks[0], head=head)
    return chunks if response.usage.estimated else [*chunks, Chunk(usage=response.usage)]
