"""What goes into a call and what comes out, the same for every provider.

A request is validated once, where it enters (`Request.parse`). What comes back is made of frozen values: cheap to
build, safe to share between threads. `content` holds the parts of a message, `messages` turns of a conversation,
`tools` what a model may call, `request` questions, `answers` whole answers and `chunks` their pieces, `embeddings`
texts turned into vectors.
"""

from __future__ import annotations

from rubberduck.types.answers import (
    Attempt,
    Choice,
    FinishReason,
    Logprobs,
    Response,
    TokenCount,
    TokenLogprob,
    Usage,
)
from rubberduck.types.chunks import Chunk, Delta, Head, ToolCallDelta
from rubberduck.types.content import (
    AudioPart,
    CacheControl,
    FileData,
    FilePart,
    ImagePart,
    ImageUrl,
    InputAudio,
    Part,
    TextPart,
)
from rubberduck.types.embeddings import EmbeddingRequest, Embeddings
from rubberduck.types.messages import Annotation, Audio, FunctionCall, Message, Native, ToolCall
from rubberduck.types.request import MAX_OUTPUT_TOKENS, MAX_REQUEST_CHARS, Request
from rubberduck.types.tools import (
    AllowedTools,
    AnyTool,
    CustomDef,
    CustomTool,
    FunctionDef,
    NamedFunction,
    NamedTool,
    Tool,
    ToolChoice,
)

__all__ = [
    "MAX_OUTPUT_TOKENS", "MAX_REQUEST_CHARS",
    "Request", "Message", "Part", "TextPart", "ImagePart", "ImageUrl", "AudioPart", "InputAudio", "FilePart",
    "FileData", "CacheControl", "ToolCall", "FunctionCall", "Annotation", "Audio", "Native",
    "Tool", "FunctionDef", "CustomTool", "CustomDef", "AnyTool", "ToolChoice", "NamedTool", "NamedFunction",
    "AllowedTools",
    "Response", "Choice", "FinishReason", "Usage", "Attempt", "Logprobs", "TokenLogprob", "TokenCount",
    "Chunk", "Delta", "Head", "ToolCallDelta",
    "EmbeddingRequest", "Embeddings",
]  # fmt: skip
