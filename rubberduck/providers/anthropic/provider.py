"""Anthropic's Messages API, versions 2023-06-01 and 2026-10-21.

The later version takes the key as a bearer token and no longer knows temperature, top_p and top_k, nor a file in an
assistant message; answers are the same in both. That is why the earlier one is what we ask for unless the
configuration says otherwise: it takes everything that a request can say, and models that want less of it are sent less.

Source: Anthropic API reference, "Messages", "Count tokens", "Versions", "Beta headers" and "Errors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rubberduck.errors import ConfigError, RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.anthropic import request as anthropic_request
from rubberduck.providers.anthropic.answers import decode_message, steps_of
from rubberduck.providers.anthropic.models import is_known, takes
from rubberduck.providers.anthropic.request import BEARER_VERSION, DEFAULT_MAX_TOKENS
from rubberduck.providers.anthropic.stream import AnthropicStreamDecoder
from rubberduck.providers.http import HTTPProvider, Outgoing
from rubberduck.providers.reading import as_count
from rubberduck.types import Request, Response, TokenCount, Usage

DEFAULT_VERSION = "2023-06-01"
"""The version that still takes a temperature."""


class Anthropic(HTTPProvider):
    """Speaks to Anthropic, or to any server with its Messages API.

    `extra.betas` is a list of beta features to ask for. Anthropic itself counts tokens; of another server
    `options.count_tokens: true` says that it does.
    """

    word = "anthropic"
    default_max_tokens = DEFAULT_MAX_TOKENS
    default_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"

    def __init__(self, config: Any) -> None:
        self.version = config.version or DEFAULT_VERSION
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.version):
            raise ConfigError(
                f"providers.{config.name}.version must be a date such as {DEFAULT_VERSION}, not {self.version!r}"
            )
        super().__init__(config)
        if self._counts_tokens():
            self.offers = self.offers.union(("count",))

    def _counts_tokens(self) -> bool:
        told = self.config.options.get("count_tokens")
        if told is not None and not isinstance(told, bool):
            raise ConfigError(f"providers.{self.name}.options.count_tokens: true or false, not {told!r}")
        return urlsplit(self.base_url).hostname == urlsplit(self.default_base_url).hostname if told is None else told

    def supports_model(self, model: str) -> bool:
        """Own names and `models` at Anthropic; elsewhere `models`, or any name if none is listed."""
        if self.config.base_url is not None:
            return model in self.config.models or not self.config.models
        return model.startswith("claude-") or model in self.config.models

    def accepts_prefill(self, model: str) -> bool:
        return is_known(model) and takes(model).prefill

    def billed(self, usage: Usage, model: str) -> list[tuple[str, Usage]]:
        """The steps of an answer that took several, each at the price of its model."""
        return steps_of(usage, model) if usage.raw and usage.raw.get("iterations") else []

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What the API does not know, and what this version or model takes no longer."""
        return anthropic_request.warnings(request, self.version)

    # --- what we send

    def encode(self, request: Request) -> Outgoing:
        """The path, headers and body of a call."""
        return self._outgoing_to("/messages", request, anthropic_request.encode_request)

    def encode_count(self, request: Request) -> Outgoing:
        """The path, headers and body of a question how many tokens a call would be."""
        if "count" not in self.offers:
            return super().encode_count(request)
        return self._outgoing_to("/messages/count_tokens", request, anthropic_request.encode_count)

    def _outgoing_to(self, path: str, request: Request, encode: Any) -> Outgoing:
        extra = self.extra_of(request)
        body = encode(request, extra, version=self.version, prefill=self._prefill(request.model))
        headers = self._headers()
        if betas := anthropic_request.betas(request, extra):
            headers["anthropic-beta"] = ",".join(betas)
        return path if self.base_url.endswith("/v1") else f"/v1{path}", headers, body

    def _prefill(self, model: str) -> bool:
        """Whether to send a begun answer: the configuration knows best, and an unknown model may take it."""
        return takes(model).prefill if self.config.prefill is None else self.config.prefill

    def _headers(self) -> dict[str, str]:
        headers = {"anthropic-version": self.version}
        if self.key and self.version >= BEARER_VERSION:
            headers["Authorization"] = f"Bearer {self.key}"
        elif self.key:
            headers["X-Api-Key"] = self.key
        return headers

    # --- what we read

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer in a whole HTTP response.

        Raises:
            ProtocolError: when a 200 holds no message; otherwise what `classify` says.
        """
        said = self.said_in(status, headers, body)
        if not isinstance(said.get("content"), list):
            raise failures.no_answer("message", status, headers, self.name)
        return decode_message(said, provider=self.name)

    def decode_count(self, status: int, headers: Mapping[str, str], body: bytes) -> TokenCount:
        """The count in a whole HTTP response. Raises as `decode` does."""
        tokens = as_count(self.said_in(status, headers, body).get("input_tokens"))
        if tokens is None:
            raise failures.no_answer("count of tokens", status, headers, self.name)
        return TokenCount(tokens, estimated=False, provider=self.name)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        """The error that an HTTP response stands for."""
        return failures.make_error(failures.read_body(body), status, headers, self.name)

    def stream_decoder(self) -> AnthropicStreamDecoder:
        """A reader of one stream."""
        return AnthropicStreamDecoder(self.name)
