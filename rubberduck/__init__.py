"""A supervised actor runtime in front of LLM providers.

In short:

    from rubberduck import RubberDuck

    with RubberDuck.start() as duck:
        print(duck.complete({"model": "any", "messages": [{"role": "user", "content": "Hi"}]}).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rubberduck import _guard

_guard.check()

if TYPE_CHECKING:
    from rubberduck.config import Config
    from rubberduck.runtime import RubberDuck
    from rubberduck.stream import Stream, StreamState
    from rubberduck.types import (
        Choice,
        Chunk,
        Delta,
        EmbeddingRequest,
        Embeddings,
        Message,
        Request,
        Response,
        TokenCount,
        Usage,
    )

_HOMES = {
    "RubberDuck": "rubberduck.runtime",
    "Config": "rubberduck.config",
    **dict.fromkeys(("Stream", "StreamState"), "rubberduck.stream"),
    **dict.fromkeys(("Choice", "Chunk", "Delta", "EmbeddingRequest", "Embeddings", "Message"), "rubberduck.types"),
    **dict.fromkeys(("Request", "Response", "TokenCount", "Usage"), "rubberduck.types"),
}

__version__ = "0.1.0"

__all__ = [
    "Choice",
    "Chunk",
    "Config",
    "Delta",
    "EmbeddingRequest",
    "Embeddings",
    "Message",
    "Request",
    "Response",
    "RubberDuck",
    "Stream",
    "StreamState",
    "TokenCount",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: the command line must not pay for what it does not need."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rubberduck' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
