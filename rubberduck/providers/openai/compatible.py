"""Servers that speak OpenAI's chat format in a way of their own: one adapter, and a row of facts for each.

`openai` with another `base_url` takes any of these too, but knows nothing of them: it sends what it is asked to send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit

from rubberduck.errors import ConfigError
from rubberduck.providers.openai import compatible_table as table
from rubberduck.providers.openai.compatible_table import Dialect
from rubberduck.providers.openai.provider import OpenAI

if TYPE_CHECKING:
    from rubberduck.config import ProviderConfig


class Compatible(OpenAI):
    """Speaks to a server whose dialect is known. What it does not know is named in a warning, or refused."""

    dialect: ClassVar[Dialect]

    def __init_subclass__(cls, dialect: Dialect, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.dialect, cls.word, cls.vendor = dialect, dialect.word, dialect.prices
        cls.default_base_url, cls.key_variable = dialect.base_url, dialect.key_variable
        cls.embedding_batch = dialect.embedding_batch
        cls.offers = frozenset({"chat", "embeddings"}) if dialect.has_embeddings else frozenset({"chat"})

    def __init__(self, config: ProviderConfig) -> None:
        if not (config.base_url or self.dialect.base_url):
            raise ConfigError(f"providers.{config.name}.base_url: needed, as each customer has an address of their own")
        super().__init__(config)

    @property
    def is_at_vendor(self) -> bool:
        return self.dialect.is_at(urlsplit(self.base_url).hostname)

    @property
    def _may_have_environments_key(self) -> bool:
        """The vendor's server, and this machine's."""
        return self.config.base_url is None or self.is_at_vendor

    @property
    def _needs_key(self) -> bool:
        return self.dialect.needs_key


class Azure(Compatible, dialect=table.AZURE):
    """Azure OpenAI: the model of a request is the name of a deployment, or stands in the address.

    `base_url` is the resource ("https://NAME.openai.azure.com", with `version`, the API's), one deployment of it, or
    the unversioned ".../openai/v1", where `version` may stay away.
    Source: Azure OpenAI REST API reference, and "API version lifecycle".
    """

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        if not (self._is_unversioned or self._asked_version):
            raise ConfigError(
                f"providers.{self.name}.version: needed, such as '2024-10-21', unless base_url ends in /openai/v1"
            )

    @property
    def _where(self) -> str:
        return urlsplit(self.base_url).path.rstrip("/")

    @property
    def _is_unversioned(self) -> bool:
        return self._where.endswith("/v1")

    @property
    def _asked_version(self) -> str | None:
        return dict(parse_qsl(urlsplit(self.base_url).query)).get("api-version") or self.config.version

    def _aim_at(self, url: SplitResult) -> None:
        query = dict(parse_qsl(url.query))
        if self.config.version:
            query.setdefault("api-version", self.config.version)
        super()._aim_at(url._replace(query=urlencode(query)))

    def _path(self, of: str, model: str) -> str:
        if self._is_unversioned or self._where.endswith("/models") or "/deployments/" in f"{self._where}/":
            return f"/{of}"
        root = "" if self._where.endswith("/openai") else "/openai"
        return f"{root}/deployments/{quote(model, safe='')}/{of}"

    def _headers(self) -> dict[str, str]:
        return {"api-key": self.key} if self.key else {}


class Groq(Compatible, dialect=table.GROQ):
    """Groq."""


class Mistral(Compatible, dialect=table.MISTRAL):
    """Mistral's La Plateforme."""


class DeepSeek(Compatible, dialect=table.DEEPSEEK):
    """DeepSeek."""


class OpenRouter(Compatible, dialect=table.OPENROUTER):
    """OpenRouter, which asks many vendors' models."""


class Together(Compatible, dialect=table.TOGETHER):
    """Together AI."""


class VLLM(Compatible, dialect=table.VLLM):
    """A vLLM server, by default on this machine."""


class LlamaServer(Compatible, dialect=table.LLAMA_SERVER):
    """llama.cpp's server, by default on this machine."""


class XAI(Compatible, dialect=table.XAI):
    """xAI."""


class Perplexity(Compatible, dialect=table.PERPLEXITY):
    """Perplexity, whose models search the web by themselves."""


class Gemini(Compatible, dialect=table.GEMINI):
    """Google's Gemini, by its OpenAI-compatible API."""
