"""The official SDKs before a server that has one answer, and our adapters for the same."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx
import httpx2
import ollama
import openai

from rubberduck.config import ProviderConfig
from rubberduck.providers import resolve
from rubberduck.providers.http import HTTPProvider

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}
LINES = {"content-type": "application/x-ndjson"}
HI: Any = [{"role": "user", "content": "Hi"}]


def provider_of(module: str) -> HTTPProvider:
    provider = resolve(module).init(
        ProviderConfig(name="vendor", module=module, base_url="http://127.0.0.1", api_keys=("k",))
    )
    assert isinstance(provider, HTTPProvider)
    return provider


def openai_client(body: bytes, headers: dict[str, str], status: int = 200) -> openai.OpenAI:
    answer = httpx2.MockTransport(lambda _: httpx2.Response(status, headers=headers, content=body))
    return openai.OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=answer))


def claude_client(body: bytes, headers: dict[str, str], status: int = 200) -> anthropic.Anthropic:
    answer = httpx2.MockTransport(lambda _: httpx2.Response(status, headers=headers, content=body))
    return anthropic.Anthropic(api_key="k", max_retries=0, http_client=httpx2.Client(transport=answer))


def ollama_client(body: bytes, headers: dict[str, str], status: int = 200) -> ollama.Client:
    answer = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, content=body))
    return ollama.Client(transport=answer)
