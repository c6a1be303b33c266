"""An answer in pieces, as it is written."""

from __future__ import annotations

from typing import Literal, final

from rubberduck.types.answers import FinishReason, Logprobs, Usage
from rubberduck.types.guarded import guarded
from rubberduck.types.messages import Annotation, Audio, Native


@final
@guarded(frozen=True, slots=True)
class ToolCallDelta:
    """A fragment of a tool call. Fragments with one `index` belong together; `arguments` are concatenated."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    type: Literal["function", "custom"] = "function"


@final
@guarded(frozen=True, slots=True)
class Delta:
    """What one chunk adds to an answer.

    `annotations` belong to what has been said, `audio` adds to its `data` and `transcript`, `native` comes whole, last.
    """

    content: str = ""
    role: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    annotations: tuple[Annotation, ...] = ()
    audio: Audio | None = None
    native: Native | None = None


@final
@guarded(frozen=True, slots=True)
class Head:
    """What an answer says beside its text, and what there is to say of it, as in `Response`."""

    created: int = 0
    service_tier: str | None = None
    system_fingerprint: str | None = None
    warnings: tuple[str, ...] = ()


@final
@guarded(frozen=True, slots=True)
class Chunk:
    """One step of a stream. `usage` is cumulative and comes with the last chunk, or never; `head` with the first."""

    index: int = 0
    delta: Delta = Delta()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    raw_finish_reason: str | None = None
    id: str | None = None
    model: str | None = None
    logprobs: Logprobs | None = None
    stop_sequence: str | None = None
    head: Head | None = None
