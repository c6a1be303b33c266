"""What a provider is: six callbacks, and what it may offer beside chat.

To write one that speaks HTTP, subclass `rubberduck.providers.http.HTTPProvider`, which does the I/O; for any other,
subclass `Provider` and do everything yourself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from rubberduck.config.modules import BUILT_IN_MODULES
from rubberduck.errors import InvalidRequest
from rubberduck.types import Chunk, EmbeddingRequest, Embeddings, Request, Response, TokenCount, Usage

if TYPE_CHECKING:
    import supervision as sup
    from rubberduck.config import ProviderConfig

Kind = Literal["chat", "embeddings", "count"]
"""What a provider can be asked for: an answer, vectors, or how many tokens a request is."""


class Provider(ABC):
    """Somebody who answers requests. `name` is the one in the configuration.

    The model in a request, and every `model` argument, is the provider's own name for it. One object serves
    many calls at once, all on one event loop.
    """

    word: ClassVar[str] = ""
    """What a configuration and `extra` call it by; the vendor's prices are listed under it, unless `vendor` is set."""
    vendor: ClassVar[str] = ""
    """The name under which the prices are listed, where that is not `word`."""
    name: str
    default_max_tokens: int | None = None
    """The most output, in tokens, of a request that does not bound it; None if nothing does."""
    offers: frozenset[Kind] = frozenset({"chat"})
    """What it can be asked for; `embed` and `count` are called only where they stand here."""
    hints: Mapping[Kind, str] = {}
    """How what it does not offer could be had of it, for who asked in vain."""
    embedding_batch: int = 2048
    """The most texts that one request for embeddings may hold."""
    peers: frozenset[str] = frozenset()
    """The names of all configured providers: what stands in `extra` under one of them is for that one alone."""
    key_names: tuple[str, ...] = ("",)
    """The keys that it may be asked with, by names that anybody may read; one without a name if it has none."""

    @classmethod
    @abstractmethod
    def init(cls, config: ProviderConfig) -> Self:
        """Make one from its configuration. Raises ConfigError, MissingApiKey."""

    @abstractmethod
    async def complete(self, request: Request) -> Response:
        """Answer a request. `usage` is whole, its `cost` None. Raises a `RubberDuckError`."""

    @abstractmethod
    def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        """Answer a request piece by piece: an async generator, whose `aclose` gives the answer up.

        It ends normally only after a whole answer. The last chunk carries the usage.
        """

    @abstractmethod
    def supports_model(self, model: str) -> bool:
        """Whether this provider has the model."""

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """Turn texts into vectors, `embedding_batch` of them at most. `usage` is whole, its `cost` None."""
        raise InvalidRequest(f"{self.name} offers no embeddings", field="model")

    async def count(self, request: Request) -> TokenCount:
        """Ask whoever serves the model how many tokens a request is."""
        raise InvalidRequest(f"{self.name} counts no tokens", field="model")

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What the provider will not be told of a request that it answers all the same; each text names the field.

        `complete` puts it into its answer, `stream` into the `head` of its first chunk.
        """
        return ()

    def extra_of(self, request: Request | EmbeddingRequest) -> dict[str, Any]:
        """What `extra` holds for this provider: under its name or its word, and what stands under no provider's."""
        if not request.extra:
            return {}
        own, others = {self.name, self.word}, self.peers | BUILT_IN_MODULES.keys()
        extra = {name: value for name, value in request.extra.items() if name not in own | others}
        for name in self.word, self.name:
            told = request.extra.get(name, {}) if name else {}
            if not isinstance(told, dict):
                raise InvalidRequest(f"extra.{name}: an object of parameters for this provider", field=f"extra.{name}")
            extra |= told
        return extra

    def count_tokens(self, text: str, model: str) -> int:
        """How many tokens a text is for a model, at least approximately."""
        from rubberduck import tokens  # loads vocabularies; most imports of this module never count

        return tokens.count(text, model)

    async def ready_to_count(self, model: str) -> None:
        """Load what `count_tokens` needs, off the loop. To be awaited before it is called there."""
        if getattr(self.count_tokens, "__func__", None) is Provider.count_tokens:
            from rubberduck import tokens

            await tokens.ready(model)

    def estimate_cost(self, usage: Usage, model: str) -> Decimal | None:
        """What a usage costs in USD, or None where the price is unknown."""
        from rubberduck import prices  # loads the price list; most imports of this module never price

        return prices.cost(self.vendor or self.word, model, usage)

    def billed(self, usage: Usage, model: str) -> Sequence[tuple[str, Usage]]:
        """What is paid for in place of a usage, step by step with the model of each; nothing if that is the usage."""
        return ()

    def for_key(self, index: int) -> Self:
        """The same provider, asking with the key of that place in `key_names`."""
        return self

    def accepts_prefill(self, model: str) -> bool:
        """Whether it is known to go on with an answer that is sent as the last message, and the assistant's own."""
        return False

    def children(self) -> Sequence[sup.ChildSpec]:
        """The actors that it needs, such as a local engine; they live beside its limiter and breaker."""
        return ()

    async def aclose(self) -> None:
        """Let go of sockets and the like. Calls in flight fail."""
        return
