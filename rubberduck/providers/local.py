"""A model that runs on this machine: from a GGUF file in an engine of ours, or behind a server that runs already."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from rubberduck.errors import ConfigError
from rubberduck.providers import local_model
from rubberduck.providers.local_process import EngineSettings
from rubberduck.providers.local_whereabouts import Engine
from rubberduck.providers.openai import OpenAI
from rubberduck.types import Chunk, NamedTool, Request, Response, Usage

if TYPE_CHECKING:
    import supervision as sup
    from rubberduck.config import ProviderConfig

ANSWER_TOKENS = 1024
"""How long an answer may be where the request does not say: a small model may not find an end by itself."""
PATIENCE_S = 15.0
"""How long a call waits for an engine that is being started again; loading a small model takes half a second."""
SLOWEST_START_S = 130.0

_OPTIONS = ("slots", "context_tokens", "threads", "max_tokens")
_BUNDLED_NAMES = frozenset({local_model.BUNDLED_NAME, "smollm2-135m", "smollm2-135m-instruct"})


class LocalProvider(OpenAI):
    """Answers from this machine, for nothing.

    With `base_url`: any server with OpenAI's chat API. Without: the GGUF file `model_path`, or the bundled
    SmolLM2, in a child process that `children()` keeps alive; `options` are `slots` (answers at once), `context_tokens`
    (of each), `threads`, and `max_tokens` (for requests that set none).

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
        elif config.model_path is not None:
            raise ConfigError(f"providers.{config.name}: give model_path or base_url, not both")
        super().__init__(config)
        if self.engine is not None:
            self.key_names = ("",)  # each life of the engine has a key of its own

    def _settings(self, model: local_model.ModelFile) -> EngineSettings:
        own = {name: value for name, value in self._options.items() if name != "max_tokens"}
        sampling = local_model.BUNDLED_SAMPLING if model.bundled else {}
        return EngineSettings(str(model.path), model.name, sampling=dict(sampling), **own)

    def _find_key(self, config: ProviderConfig) -> str | None:
        return config.api_keys[0].get_secret_value() if config.api_keys else None

    # --- the engine's life

    def children(self) -> list[sup.ChildSpec]:
        """What has to be kept alive beside this provider."""
        if self.engine is None:
            return []
        import supervision as sup
        from rubberduck.providers.local_actor import LocalEngineActor

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

    # --- calls

    async def complete(self, request: Request) -> Response:
        await self._locate()
        return await super().complete(request)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        await self._locate()
        async with aclosing(super().stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _locate(self) -> None:
        """Aim at the engine's present life. The URL is read before the next await, so calls cannot mix them up."""
        if self.engine is not None:
            endpoint = await self.engine.endpoint(PATIENCE_S)
            self.key = endpoint.key
            self._aim_at(urlsplit(endpoint.base_url))

    def encode(self, request: Request) -> tuple[str, dict[str, str], dict[str, Any]]:
        if self.engine is None:
            return super().encode(request)
        if request.max_tokens is None:
            request = request.model_copy(update={"max_tokens": self._options.get("max_tokens", ANSWER_TOKENS)})
        path, headers, body = super().encode(request)
        # The engine promises to keep a connection and closes it after a stream; the next call would find it dead.
        return path, headers | {"Connection": "close"}, body

    def accepts_prefill(self, model: str) -> bool:
        """The engine does, being llama.cpp's server; another server may be asked for a new turn by the same message."""
        return self.engine is not None

    def warnings(self, request: Request) -> tuple[str, ...]:
        if self.engine is not None and isinstance(request.tool_choice, NamedTool):
            return ("the engine takes a tool_choice that names a tool as `auto`",)
        return ()

    # --- what it knows

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


def _checked_options(config: ProviderConfig) -> dict[str, Any]:
    for name, value in config.options.items():
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise ConfigError(f"providers.{config.name}.options.{name}: unknown; a local model knows {known}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"providers.{config.name}.options.{name}: a whole number above 0, not {value!r}")
    return dict(config.options)
