"""Ollama's own API, as a server on this machine, in the house, or ollama.com speaks it.

What it adds over Ollama's OpenAI-compatible one: the size of the context, thinking, and how long a model stays loaded.
Source: Ollama API reference, "Generate a chat message", "Generate embeddings", "Errors", and its page "Context length".
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rubberduck.errors import ConfigError, InvalidRequest, RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.http import HTTPProvider, Outgoing
from rubberduck.providers.ollama.remote_images import RemoteImages
from rubberduck.providers.ollama.request import encode_request, warnings_for
from rubberduck.providers.ollama.stream import (
    OllamaStreamDecoder,
    created_of,
    fault_in,
    finish_reason,
    is_answer,
    message_of,
    tool_calls_of,
    usage_of,
)
from rubberduck.providers.openai.dialects import logprobs_of
from rubberduck.providers.reading import as_list, as_name, as_text, parse_json
from rubberduck.types import Choice, Chunk, EmbeddingRequest, Embeddings, Message, Request, Response, Usage

if TYPE_CHECKING:
    from rubberduck.config import ProviderConfig

CONTEXT_TOKENS = 8192
"""How much a model is to see where `options.num_ctx` does not say: servers with little memory would take 4,096."""
CLOUD = "ollama.com"

_OPTIONS = ("num_ctx", "keep_alive", "fetch_images")
_CLOUD_MODEL = re.compile(r"[:-]cloud$")


class Ollama(HTTPProvider):
    """Speaks to an Ollama server: the one on this machine, or that of `base_url`.

    `options` are `num_ctx` (the context in tokens; 0 leaves it to the server), `keep_alive` (how long a model stays
    loaded, such as "10m") and `fetch_images`: true, which fetches what a request names by an https URL, from public
    addresses only; without it such an image is refused, as the server takes none.

    A conversation that does not fit is refused as ContextLengthExceeded: by itself the server would cut its beginning
    off and say nothing; `extra` with `truncate: true` asks for that.

    There is no tool_choice: "none" sends no tools, a named one sends that tool alone; that it is called is not certain.
    In `extra`, what is no field of the request itself is taken as a model's option: `{"min_p": 0.1}`.
    """

    word = "ollama"
    offers = frozenset({"chat", "embeddings"})
    embedding_batch = 512
    default_base_url = "http://127.0.0.1:11434"
    key_variable = "OLLAMA_API_KEY"

    def __init__(self, config: ProviderConfig) -> None:
        self._options = _checked_options(config)
        self.images = RemoteImages() if self._options.pop("fetch_images", False) else None
        super().__init__(config)
        if self.base_url.endswith("/v1"):
            raise ConfigError(
                f"providers.{self.name}.base_url: leave /v1 away, which is not Ollama's own API; "
                "for that path use `module: openai`"
            )

    @property
    def is_cloud(self) -> bool:
        """Whether it is ollama.com, which wants a key and money."""
        return f".{urlsplit(self.base_url).hostname}".endswith(f".{CLOUD}")

    @property
    def _may_have_environments_key(self) -> bool:
        return self.is_cloud

    def supports_model(self, model: str) -> bool:
        """`models`, or any name if none is listed: what a server has is known to it alone."""
        return model in self.config.models or not self.config.models

    def estimate_cost(self, usage: Usage, model: str) -> Decimal | None:
        """Nothing where the machine is one's own; unknown for ollama.com, and what a server asks there."""
        return None if self._is_elsewhere(model) else Decimal(0)

    def _is_elsewhere(self, model: str) -> bool:
        """Whether a model runs in ollama.com's machines, with all the context that it has."""
        return self.is_cloud or _CLOUD_MODEL.search(model) is not None

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def _path(self, name: str) -> str:
        return f"/{name}" if self.base_url.endswith("/api") else f"/api/{name}"

    # --- chat

    async def complete(self, request: Request) -> Response:
        return await super().complete(await self._with_images(request))

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        async with aclosing(super().stream(await self._with_images(request))) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _with_images(self, request: Request) -> Request:
        if self.images is None:
            return request
        try:
            return await self.images.brought_into(request)
        except RubberDuckError as error:
            raise self._labelled(error, request.model) from None

    def encode(self, request: Request) -> Outgoing:
        """The path, headers and body of a call."""
        options = self._options
        if "num_ctx" not in options and not self._is_elsewhere(request.model):
            options = {"num_ctx": CONTEXT_TOKENS} | options
        return self._path("chat"), self._headers(), encode_request(request, options, self.extra_of(request))

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What Ollama has no parameter for, and what it takes otherwise."""
        return warnings_for(request)

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer in a whole HTTP response.

        Raises:
            ProtocolError: when a 200 holds no answer; otherwise what `classify` says.
        """
        said = self.said_in(status, headers, body)
        if not (is_answer(said) and said.get("done") is True):
            raise failures.no_answer("chat answer", status, headers, self.name)
        return decode_answer(said, provider=self.name)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        """The error that an HTTP response stands for."""
        try:
            fault = fault_in(parse_json(body))
        except ValueError:
            fault = failures.read_body(body)
        return failures.make_error(fault, status, headers, self.name)

    def stream_decoder(self) -> OllamaStreamDecoder:
        """A reader of one stream."""
        return OllamaStreamDecoder(self.name)

    # --- embeddings

    def embedding_warnings(self, request: EmbeddingRequest) -> tuple[str, ...]:
        """What Ollama has no parameter for."""
        return () if request.user is None else ("user is not sent: Ollama has no such field",)

    def encode_embedding(self, request: EmbeddingRequest) -> Outgoing:
        """As `encode`. Texts only; one that is too long is refused, not cut."""
        if any(not isinstance(text, str) for text in request.input):
            raise InvalidRequest("Ollama takes texts, not token numbers", field="input")
        body: dict[str, Any] = {"model": request.model, "input": list(request.input), "truncate": False}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        body |= {name: value for name, value in self._options.items() if name == "keep_alive"}
        return self._path("embed"), self._headers(), body | self.extra_of(request)

    def decode_embedding(self, status: int, headers: Mapping[str, str], body: bytes) -> Embeddings:
        """The vectors in a whole HTTP response. Raises as `decode` does."""
        said = self.said_in(status, headers, body)
        vectors = tuple(_vectors(said.get("embeddings")))
        if not vectors or not all(vectors):
            raise failures.no_answer("list of embeddings", status, headers, self.name)
        usage = usage_of(said) or Usage(estimated=True)
        return Embeddings(as_text(said.get("model")), vectors, usage, provider=self.name)


def _checked_options(config: ProviderConfig) -> dict[str, Any]:
    for name, value in config.options.items():
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise ConfigError(f"providers.{config.name}.options.{name}: unknown; Ollama's are {known}")
        if name == "num_ctx" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ConfigError(f"providers.{config.name}.options.num_ctx: a whole number from 0 on, not {value!r}")
        if name == "keep_alive" and (not isinstance(value, str | int | float) or isinstance(value, bool)):
            raise ConfigError(f"providers.{config.name}.options.keep_alive: a duration such as '10m', not {value!r}")
        if name == "fetch_images" and not isinstance(value, bool):
            raise ConfigError(f"providers.{config.name}.options.fetch_images: true or false, not {value!r}")
    return dict(config.options)


def decode_answer(said: dict[str, Any], *, provider: str) -> Response:
    """A parsed answer. Usage that the server did not tell is marked `estimated`, and zero."""
    message = message_of(said)
    calls = tuple(tool_calls_of(said, message))
    text, raw = as_text(message.get("content")), as_name(said.get("done_reason"))
    answer = Message(
        role="assistant",
        content=text if text or not calls else None,
        tool_calls=calls,
        reasoning=as_text(message.get("thinking")) or None,
    )
    reason = finish_reason(raw, has_tools=bool(calls))
    logprobs = logprobs_of({"content": said.get("logprobs")})
    return Response(
        id="",
        model=as_text(said.get("model")),
        choices=(Choice(0, answer, reason, raw, None, logprobs),),
        usage=usage_of(said) or Usage(estimated=True),
        created=created_of(said),
        provider=provider,
    )


def _vectors(said: object) -> Iterator[tuple[float, ...]]:
    """Vectors as numbers; one that holds anything else is empty."""
    for vector in as_list(said):
        numbers = [float(each) for each in as_list(vector) if isinstance(each, int | float)]
        yield tuple(numbers) if len(numbers) == len(as_list(vector)) else ()
