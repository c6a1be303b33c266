"""A model that runs on this machine: from a GGUF file in an engine of ours, or behind a server that runs already."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from rubberduck.errors import ConfigError, InvalidRequest, RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.base import Kind
from rubberduck.providers.http import Outgoing
from rubberduck.providers.local import calls as local_calls
from rubberduck.providers.local import model as local_model
from rubberduck.providers.local.process import EngineSettings
from rubberduck.providers.local.template import BUNDLED_TEMPLATE
from rubberduck.providers.local.whereabouts import Engine
from rubberduck.providers.openai.compatible_table import LLAMA_SERVER, Dialect
from rubberduck.providers.openai.provider import OpenAI
from rubberduck.providers.reading import as_count
from rubberduck.types import (
    Chunk,
    EmbeddingRequest,
    Embeddings,
    Request,
    Response,
    TokenCount,
    Usage,
)

if TYPE_CHECKING:
    import supervision as sup
    from rubberduck.config import ProviderConfig

ANSWER_TOKENS = 1024
"""How long an answer may be where the request does not say: a small model may not find an end by itself."""
PATIENCE_S = 15.0
"""How long a call waits for an engine that is being started again; loading a small model takes half a second."""
SLOWEST_START_S = 130.0
EMBEDDING_BATCH = 32
"""A core reads about 200 tokens a second: more texts at once would outlast an attempt."""

_TOO_LONG = "is too large to process"
_NUMBERS = ("slots", "context_tokens", "threads", "max_tokens")
_POOLINGS = ("mean", "cls", "last")
_ENGINE = replace(LLAMA_SERVER, word="a local model", fields=LLAMA_SERVER.fields | {"n"}, media=frozenset())
"""What llama.cpp's server understands, as it runs here: several answers, but neither eyes nor ears."""
_BUNDLED_NAMES = frozenset({local_model.BUNDLED_NAME, "smollm2-135m", "smollm2-135m-instruct"})


class LocalProvider(OpenAI):
    """Answers from this machine, for nothing.

    With `base_url`: any server with OpenAI's chat API. Without: the GGUF file `model_path`, or the bundled
    SmolLM2, in a child process that `children()` keeps alive; `options` are `slots` (answers at once), `context_tokens`
    (of each), `threads`, `max_tokens` (for requests that set none), and `embeddings`: true, or how the vectors of a
    text's tokens are put together ("mean", "cls", "last") where the model's file does not say.

    The engine's answers keep to a JSON Schema, and where a tool must be called, one call is all that is written.

    Without a tree, use it as an async context manager.
    """

    word = ""
    default_base_url = "http://127.0.0.1/v1"
    key_variable = ""
    engine: Engine | None

    def __init__(self, config: ProviderConfig) -> None:
        self._options = _checked_options(config)
        self.engine = None
        self._names: frozenset[str] = frozenset()
        if config.base_url is None:
            model = local_model.open_model(config.model_path)
            _require_engine()
            self.engine = Engine(self._settings(model))
            self._names = frozenset({model.name, model.path.stem}) | (_BUNDLED_NAMES if model.bundled else frozenset())
            self.offers = _offers(self.engine.settings)
            self.hints = {"embeddings": "start its engine with options: {embeddings: true}"}
            self.embedding_batch = EMBEDDING_BATCH
        elif config.model_path is not None:
            raise ConfigError(f"providers.{config.name}: give model_path or base_url, not both")
        super().__init__(config)
        if self.engine is not None:
            self.key_names = ("",)  # each life of the engine has a key of its own

    def _settings(self, model: local_model.ModelFile) -> EngineSettings:
        own = {name: value for name, value in self._options.items() if name not in ("max_tokens", "embeddings")}
        own["pooling"] = _pooling(self._options.get("embeddings", False), model)
        if model.bundled:
            own |= {"sampling": dict(local_model.BUNDLED_SAMPLING), "template": BUNDLED_TEMPLATE}
        return EngineSettings(str(model.path), model.name, **own)

    @property
    def _may_have_environments_key(self) -> bool:
        return False

    # --- the engine's life

    def children(self) -> list[sup.ChildSpec]:
        """What has to be kept alive beside this provider."""
        if self.engine is None:
            return []
        import supervision as sup
        from rubberduck.providers.local.actor import LocalEngineActor

        return [
            sup.ChildSpec(f"engine:{self.name}", LocalEngineActor, args=(self.engine,), start_timeout=SLOWEST_START_S)
        ]

    async def __aenter__(self) -> Self:
        if self.engine is not None:
            await self.engine.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.engine is not None:
            await self.engine.stop()
        await self.aclose()

    @cached_property
    def dialect(self) -> Dialect:
        """What the engine, or the server, understands."""
        return super().dialect if self.engine is None else _ENGINE

    # --- calls

    async def complete(self, request: Request) -> Response:
        await self._locate()
        response = await super().complete(request)
        return local_calls.with_call(response) if self._must_call(request) else response

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        await self._locate()
        async with aclosing(super().stream(request)) as chunks:
            reader = local_calls.StreamReader() if self._must_call(request) else None
            async for chunk in chunks:
                yield chunk if reader is None else reader.read(chunk)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        await self._locate()
        return await super().embed(request)

    async def count(self, request: Request) -> TokenCount:
        await self._locate()
        return await super().count(request)

    def _must_call(self, request: Request) -> bool:
        return self.engine is not None and bool(request.tools) and local_calls.must_call(request)

    async def _locate(self) -> None:
        """Aim at the engine's present life. The URL is read before the next await, so calls cannot mix them up."""
        if self.engine is not None:
            endpoint = await self.engine.endpoint(PATIENCE_S)
            self.key = endpoint.key
            self._aim_at(urlsplit(endpoint.base_url))

    def encode(self, request: Request) -> Outgoing:
        if self.engine is None:
            return super().encode(request)
        path, headers, body = super().encode(self._fitting(request))
        # The engine promises to keep a connection and closes it after a stream; the next call would find it dead.
        return path, headers | {"Connection": "close"}, body

    def _fitting(self, request: Request) -> Request:
        """The request with an end to its answer, and with the call that must be made as a schema."""
        if request.max_tokens is None:
            request = request.model_copy(update={"max_tokens": self._options.get("max_tokens", ANSWER_TOKENS)})
        return local_calls.held_to_a_call(request) if local_calls.must_call(request) else request

    # --- counts and vectors

    def encode_count(self, request: Request) -> Outgoing:
        """Of exactly what `encode` would send, so that the count is what an answer's usage says."""
        if self.engine is None:
            return super().encode_count(request)
        path, headers, body = self.encode(request)
        return f"{path}/input_tokens", headers, body

    def decode_count(self, status: int, headers: Mapping[str, str], body: bytes) -> TokenCount:
        if self.engine is None:
            return super().decode_count(status, headers, body)
        said = self.said_in(status, headers, body)
        if (tokens := as_count(said.get("input_tokens"))) is None:
            raise failures.no_answer("count of tokens", status, headers, self.name)
        return TokenCount(tokens, estimated=False, provider=self.name)

    def encode_embedding(self, request: EmbeddingRequest) -> Outgoing:
        if self.engine is None:
            return super().encode_embedding(request)
        if request.dimensions is not None:
            raise InvalidRequest("a local model's vectors have one length: leave it out", field="dimensions")
        path, headers, body = super().encode_embedding(request)
        return path, headers | {"Connection": "close"}, body

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        """As everywhere, but that a text too long for a vector is the text's fault: the engine calls it its own."""
        fault = failures.read_body(body)
        if self.engine is not None and status == 500 and _TOO_LONG in fault.message:
            fault = replace(fault, type="exceed_context_size_error")
        return failures.make_error(fault, status, headers, self.name)

    # --- what it knows

    def accepts_prefill(self, model: str) -> bool:
        """The engine does, being llama.cpp's server; another server may be asked for a new turn by the same message."""
        return self.engine is not None

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What the engine is not told, and would not do without being told to."""
        if self.engine is None:
            return super().warnings(request)
        texts = [*super().warnings(request)]
        if not request.tools:
            return tuple(texts)
        if not self.engine.shows_tools:
            texts.append("tools are not shown to the model: the template in its file has no place for them")
        if local_calls.must_call(request) and request.response_format is not None:
            texts.append("response_format is not sent: where a tool must be called, the answer is the call")
        return tuple(texts)

    def supports_model(self, model: str) -> bool:
        """The file's own name and `models`; for a server, `models`, or any name if none is listed."""
        if self.engine is None:
            return super().supports_model(model)
        return model in self.config.models or model.lower() in {name.lower() for name in self._names}

    def estimate_cost(self, usage: Usage, model: str) -> Decimal | None:
        """Nothing: the machine is paid for."""
        return Decimal(0)


def _require_engine() -> None:
    if not local_model.has_engine():
        raise ConfigError(
            f"the local model's engine is not installed: run `pip install {local_model.ENGINE_MODULE}`; where there is "
            "no wheel for this platform, set base_url to a server, use a vendor's key, or the mock"
        )


def _offers(settings: EngineSettings) -> frozenset[Kind]:
    return frozenset({"chat", "count", "embeddings"} if settings.pooling else {"chat", "count"})


def _pooling(wanted: bool | str, model: local_model.ModelFile) -> str | None:
    if wanted is True:
        return "mean" if model.bundled else "model"
    return wanted or None


def _checked_options(config: ProviderConfig) -> dict[str, Any]:
    for name, value in config.options.items():
        if name == "embeddings":
            if not isinstance(value, bool) and value not in _POOLINGS:
                known = ", ".join(_POOLINGS)
                raise ConfigError(f"providers.{config.name}.options.embeddings: true, or one of {known}, not {value!r}")
            continue
        if name not in _NUMBERS:
            known = ", ".join([*_NUMBERS, "embeddings"])
            raise ConfigError(f"providers.{config.name}.options.{name}: unknown; a local model knows {known}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"providers.{config.name}.options.{name}: a whole number above 0, not {value!r}")
    return dict(config.options)
