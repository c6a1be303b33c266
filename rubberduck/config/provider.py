"""What is configured about one provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, GetJsonSchemaHandler, SecretStr, field_serializer, field_validator, model_validator
from pydantic.json_schema import WithJsonSchema
from pydantic_core import CoreSchema

from rubberduck.config.modules import BUILT_IN_MODULES, ENTRY_POINT_GROUP
from rubberduck.config.scalars import Duration, Flag, Number, Size, Whole
from rubberduck.config.sections import Section

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)

_OWN_PATH = re.compile(r"(/chat/completions|(/[^/]+)?/messages|/responses)$")
_NO_URL = "is not a URL like https://host/v1"
_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Timeout = Annotated[float, Duration()]
_TWICE = object()
"""Stands for keys that were given under both names, so that all else that is wrong with the provider is told too."""
NOT_WRITTEN = ("name", "http_client", "transport")
"""Attributes that no configuration file has."""


class PoolConfig(Section):
    """The connections kept to one provider: how many at most, and for how many seconds unused."""

    size: Annotated[int, Whole(1, 10_000)] = 50
    idle: Annotated[float, Duration()] = 30.0


class AnswerLimits(Section):
    """How much of an answer is taken, in bytes as they are after decompression; what is larger is a ProtocolError.

    `body`: a whole answer, and the text of a streamed one. `stream`: all of a stream, signs of life included.
    `event`: one event of it. `error`: what is read of a failure, the rest of which is not missed.
    """

    body: Annotated[int, Size(1024, 1 << 34)] = 16 << 20
    stream: Annotated[int, Size(1024, 1 << 40)] = 256 << 20
    event: Annotated[int, Size(1024, 1 << 34)] = 16 << 20
    error: Annotated[int, Size(1024, 1 << 34)] = 1 << 20


class ProviderConfig(Section):
    """One provider: what serves it, where, with which keys, and how patiently.

    `module` is a built-in's word, the name of an entry point, or a class; without it the provider's own name
    must be one of the first two. `models` are names beyond those the module knows. Lower `priority` is tried
    first; `weight` shares traffic within a priority. Timeouts are in seconds and of one attempt; None leaves
    them to the runtime. `min_rate` is the tokens per second that a stream must keep up over 20 s; None or 0
    asks for none. `prefill` says whether its models go on with an answer that another one began; None leaves it
    to what the module knows.

    `api_keys`, or `api_key` for one, take turns, and each has the provider's rate limits for itself. One that is
    refused or whose account is used up is left alone for a while; nothing names it but its place: "key 1".

    `responses` is the mock's script, `options` what a third party's provider wants to know. `http_client`
    and `transport` are objects, for use from Python only.

    As in every configuration, a bare number for a duration is milliseconds, also when this class is built in
    Python; give "30s" or a timedelta to be plain.
    """

    name: str = Field(exclude=True)  # in a file it is the key that the rest stands under
    module: Annotated[str | type[Any], WithJsonSchema({"type": "string"})] = ""
    api_keys: tuple[SecretStr, ...] = ()
    base_url: str | None = None
    models: tuple[_Text, ...] = ()
    priority: Annotated[int, Whole(0, 1_000_000)] = 1
    weight: Annotated[float, Number(0, 1_000_000, above=True)] = 1.0
    timeout: _Timeout | None = None
    connect_timeout: _Timeout | None = None
    first_token_timeout: _Timeout | None = None
    idle_timeout: _Timeout | None = None
    min_rate: Annotated[float, Number(0, 1_000_000)] | None = 1.0
    prefill: Annotated[bool, Flag()] | None = None
    pool: PoolConfig = PoolConfig()
    answer_limits: AnswerLimits = AnswerLimits()
    organization: str | None = None
    version: str | None = None
    model_path: str | None = None
    responses: tuple[Any, ...] = Field(default=(), repr=False)
    options: dict[str, Any] = Field(default_factory=dict, repr=False)
    http_client: Any = Field(default=None, repr=False, exclude=True)
    transport: Any = Field(default=None, repr=False, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _accept_one_for_many(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = dict(value)
        if "api_key" in value:
            one = value.pop("api_key")
            value["api_keys"] = _TWICE if "api_keys" in value else one
        for section in ("pool", "answer_limits"):
            if value.get(section, ...) is None:
                del value[section]
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError("a provider's name has 1 to 64 letters, digits, '_', '-' or '.'")
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _read_keys(cls, value: Any) -> Any:
        if value is None:
            return ()
        if value is _TWICE:
            raise ValueError("give api_key or api_keys, not both")
        keys = [value] if isinstance(value, str | SecretStr) else value
        if not isinstance(keys, list | tuple) or not all(isinstance(key, str | SecretStr) for key in keys):
            raise ValueError("a key is a string (quote it), several keys are a list of strings")
        plain = [(key.get_secret_value() if isinstance(key, SecretStr) else key).strip() for key in keys]
        if any(not key.isascii() or not key.isprintable() or " " in key for key in plain):
            raise ValueError("a key has no spaces, line breaks or letters beyond ASCII; it could not be sent")
        return tuple(SecretStr(key) for key in dict.fromkeys(plain) if key)

    @field_validator("models", "responses", mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        if value is None:
            return ()
        return [value] if isinstance(value, str) else value

    @field_validator("base_url", "organization", "version", "model_path", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise ValueError(_NO_URL) from None
        if usable and (own := _OWN_PATH.search(parts.path)):
            raise ValueError(f"leave {own[0]} away: the calls' own path is added")
        if not usable or any(letter.isspace() for letter in value):
            raise ValueError(_NO_URL)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not carry a user or password; keys go into api_key")
        return value.rstrip("/")

    @field_validator("organization", "version")
    @classmethod
    def _fits_a_header(cls, value: str | None) -> str | None:
        if value is not None and not (value.isascii() and value.isprintable() and len(value) <= 256):
            raise ValueError("must be short printable ASCII; it is sent as a header")
        return value

    @field_validator("module", mode="plain")
    @classmethod
    def _read_module(cls, value: Any) -> Any:
        if isinstance(value, type) or (isinstance(value, str) and value.strip()):
            return value
        raise ValueError(f"is one of {', '.join(BUILT_IN_MODULES)}, the name of an entry point, or a class")

    @field_serializer("module", when_used="json")
    def _write_module(self, module: str | type[Any]) -> str:
        return module if isinstance(module, str) else f"{module.__module__}:{module.__qualname__}"

    @model_validator(mode="after")
    def _name_is_module(self) -> Self:
        if self.module:
            return self
        if self.name not in BUILT_IN_MODULES and not entry_points(group=ENTRY_POINT_GROUP, name=self.name):
            raise ValueError(f"needs `module`: one of {', '.join(BUILT_IN_MODULES)}, an entry point, or a class")
        # The model is frozen for its readers, who see it only after this.
        object.__setattr__(self, "module", self.name)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        described = handler.resolve_ref_schema(handler(schema))
        properties = described["properties"]
        for name in NOT_WRITTEN:
            properties.pop(name, None)
        described["required"] = []
        key = {"type": "string", "description": "the API key, best as ${VARIABLE} or ${file:/path}"}
        properties["api_key"] = key
        properties["api_keys"] = {"anyOf": [{"type": "array", "items": key}, key]}
        for name in ("models", "responses"):
            properties[name] = {"anyOf": [properties[name], {"type": "string"}]}
        return described
