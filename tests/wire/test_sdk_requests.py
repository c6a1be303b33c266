"""What we send is what the vendor's own SDK sends for the same intent: method, address, headers that matter, JSON.

Both ask through a transport that only takes note. Equal spellings of the formats are brought to one (`same` of each
SDK); everything else that differs is written beside the intent.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import anthropic
import httpx
import httpx2
import ollama
import openai
import pytest
from tests_sdk_intents import (
    ALWAYS,
    BRIEF,
    COUNTS,
    EMBEDDINGS,
    HI,
    INTENTS,
    MODELS,
    Intent,
    Kwargs,
    Native,
    Refused,
    Told,
)

from rubberduck.config import ProviderConfig
from rubberduck.errors import InvalidRequest, RubberDuckError
from rubberduck.providers import resolve
from rubberduck.providers.http import HTTPProvider
from rubberduck.types import EmbeddingRequest, Request

pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")  # asked for being old
KEY = "test-key"
THAT_MATTER = ("authorization", "x-api-key", "api-key", "anthropic-version", "anthropic-beta", "content-type")


class Sent(NamedTuple):
    """One request on the wire."""

    method: str
    url: str
    headers: dict[str, str]
    body: Kwargs


class Notes:
    """A server that notes what it is sent, and refuses it."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []

    def take(self, request: Any) -> None:
        headers = {name: request.headers[name] for name in THAT_MATTER if name in request.headers}
        self.sent.append(Sent(request.method, str(request.url), headers, json.loads(request.content)))

    def refuse(self, request: httpx.Request) -> httpx.Response:
        self.take(request)
        return httpx.Response(400, json={"error": "noted"})

    def refuse_v2(self, request: httpx2.Request) -> httpx2.Response:
        self.take(request)
        return httpx2.Response(400, json={"error": {"message": "noted"}})


# --- equal spellings


def spelled_out(body: Kwargs, name: str, kinds: dict[str, str]) -> Kwargs:
    """A turn that is a text, and one of a single part that is this text, say the same."""
    for turn in body.get(name, []):
        if isinstance(turn.get("content"), str):
            kind = kinds.get(turn["role"], kinds[""])
            turn["content"] = [{"type": kind, "text": turn["content"]}]
    return body


def same_chat(body: Kwargs) -> Kwargs:
    return body


def same_responses(body: Kwargs) -> Kwargs:
    """An item without a type is a message; `auto` is how an image is looked at where nothing is said."""
    for item in body["input"]:
        if item.get("type") == "message":
            del item["type"]
    return spelled_out(body, "input", {"": "input_text", "assistant": "output_text"})


def same_messages(body: Kwargs) -> Kwargs:
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}]
    for turn in body["messages"]:
        for block in turn["content"]:
            if isinstance(block, dict) and isinstance(block.get("content"), str):
                block["content"] = [{"type": "text", "text": block["content"]}]
    return spelled_out(body, "messages", {"": "text"})


def same_ollama(body: Kwargs) -> Kwargs:
    """Empty texts and lists say nothing, the SDK writes the one and we may write the other; ids it leaves out."""
    for turn in body.get("messages", []):
        for name in [name for name in turn if not turn[name] or name == "tool_call_id"]:
            del turn[name]
        for called in turn.get("tool_calls", []):
            called.pop("id", None)
            called.pop("type", None)
            called["function"].pop("index", None)
    if not body.get("tools", True):
        del body["tools"]
    return without_context(body)


def without_context(body: Kwargs) -> Kwargs:
    """We say beside how much the model is to see, and that nothing may be cut off."""
    options = body.get("options") or {}
    body.pop("truncate", None)
    options.pop("num_ctx", None)
    return body if options else {name: value for name, value in body.items() if name != "options"}


# --- the SDKs


def ask_openai(notes: Notes, **kwargs: Any) -> None:
    with httpx2.Client(transport=httpx2.MockTransport(notes.refuse_v2)) as client:
        openai.OpenAI(api_key=KEY, max_retries=0, http_client=client).chat.completions.create(**kwargs)


def ask_responses(notes: Notes, **kwargs: Any) -> None:
    with httpx2.Client(transport=httpx2.MockTransport(notes.refuse_v2)) as client:
        openai.OpenAI(api_key=KEY, max_retries=0, http_client=client).responses.create(**kwargs)


def embed_openai(notes: Notes, **kwargs: Any) -> None:
    with httpx2.Client(transport=httpx2.MockTransport(notes.refuse_v2)) as client:
        openai.OpenAI(api_key=KEY, max_retries=0, http_client=client).embeddings.create(**kwargs)


def claude_client(client: httpx2.Client, version: str | None) -> anthropic.Anthropic:
    if version is None:
        return anthropic.Anthropic(api_key=KEY, max_retries=0, http_client=client)
    headers = {"anthropic-version": version, "x-api-key": KEY, "authorization": anthropic.Omit()}
    return anthropic.Anthropic(
        api_key=KEY,
        max_retries=0,
        http_client=client,
        default_headers=headers,  # type: ignore[arg-type]
    )


def ask_anthropic(notes: Notes, version: str | None = None, **kwargs: Any) -> None:
    with httpx2.Client(transport=httpx2.MockTransport(notes.refuse_v2)) as client:
        claude_client(client, version).messages.create(**kwargs)


def ask_anthropic_of_2023(notes: Notes, **kwargs: Any) -> None:
    ask_anthropic(notes, "2023-06-01", **kwargs)


def count_anthropic(notes: Notes, **kwargs: Any) -> None:
    with httpx2.Client(transport=httpx2.MockTransport(notes.refuse_v2)) as client:
        claude_client(client, None).messages.count_tokens(**kwargs)


def ask_ollama(notes: Notes, **kwargs: Any) -> None:
    answer = ollama.Client(transport=httpx.MockTransport(notes.refuse)).chat(**kwargs)
    if kwargs.get("stream"):
        next(iter(answer))


def embed_ollama(notes: Notes, **kwargs: Any) -> None:
    ollama.Client(transport=httpx.MockTransport(notes.refuse)).embed(**kwargs)


@dataclass(frozen=True)
class Dialect:
    """One vendor's API: the SDK's call, our module and its settings, and what is the same to this vendor.

    `beyond` is what we always say besides, for which the SDK has no argument.
    """

    column: str
    module: str
    ask: Callable[..., None]
    same: Callable[[Kwargs], Kwargs]
    embed: Callable[..., None] | None = None
    version: str | None = None
    base_url: str | None = None
    beyond: Kwargs = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.module}-{self.version}" if self.version else self.module

    def native(self, intent: Intent) -> Native:
        if self.version == "2023-06-01" and intent.anthropic_2023 is not None:
            return intent.anthropic_2023
        return getattr(intent, self.column)

    def model(self, intent: Intent) -> str:
        return intent.models.get(self.column, MODELS[self.column])


DIALECTS = [
    Dialect("openai", "openai", ask_openai, same_chat, embed_openai),
    Dialect("responses", "openai_responses", ask_responses, same_responses),
    Dialect("anthropic", "anthropic", ask_anthropic, same_messages, version="2026-10-21"),
    Dialect("anthropic", "anthropic", ask_anthropic_of_2023, same_messages, version="2023-06-01"),
    Dialect(
        "ollama",
        "ollama",
        ask_ollama,
        same_ollama,
        embed_ollama,
        base_url="http://127.0.0.1:11434",
        beyond={"truncate": False},
    ),
]


def sdk_sends(call: Callable[..., None], dialect: Dialect, **kwargs: Any) -> Sent:
    notes = Notes()
    with pytest.raises((openai.APIStatusError, anthropic.APIStatusError, ollama.ResponseError)):
        call(notes, **kwargs)
    (sent,) = notes.sent
    return sent._replace(body=dialect.same(sent.body | dialect.beyond))


def always(dialect: Dialect, kwargs: Kwargs) -> Kwargs:
    """The arguments of a row with those of each call; options of both are put together."""
    usual = ALWAYS[dialect.column]
    options = {"options": usual["options"] | kwargs.get("options", {})} if "options" in usual else {}
    return copy.deepcopy(usual | kwargs | options)


def provider_of(dialect: Dialect, notes: Notes, key: str | None = None) -> HTTPProvider:
    config = ProviderConfig(
        name="vendor",
        module=dialect.module,
        api_keys=(key,) if key else () if dialect.base_url else (KEY,),
        base_url=dialect.base_url,
        version=dialect.version,
        transport=httpx.MockTransport(notes.refuse),
    )
    provider = resolve(dialect.module).init(config)
    assert isinstance(provider, HTTPProvider)
    return provider


async def drive(call: Coroutine[Any, Any, Any] | Any) -> None:
    if isinstance(call, Coroutine):
        await call
    else:
        await anext(call)


def we_send(dialect: Dialect, ask: Callable[[HTTPProvider], Any], key: str | None = None) -> Sent | RubberDuckError:
    """What left us; else the error with which nothing did."""
    notes = Notes()

    async def story() -> RubberDuckError:
        provider = provider_of(dialect, notes, key)
        try:
            await drive(ask(provider))
        except RubberDuckError as error:
            return error
        finally:
            await provider.aclose()
        raise AssertionError("the server refused")

    error = asyncio.run(story())
    return notes.sent[0]._replace(body=dialect.same(notes.sent[0].body)) if notes.sent else error


def fields_of(warnings: tuple[str, ...]) -> set[str]:
    return {warning.split()[0].rstrip(":") for warning in warnings}


def without_places(path: str | None) -> str:
    """`messages.content` for `messages.0.content.1`."""
    return re.sub(r"\.\d+", "", path or "")


def comparisons(intents: list[Intent]) -> list[Any]:
    pairs = [(intent, dialect) for intent in intents for dialect in DIALECTS if dialect.native(intent) is not None]
    return [pytest.param(intent, dialect, id=f"{intent}-{dialect}") for intent, dialect in pairs]


@pytest.mark.parametrize(("intent", "dialect"), comparisons(INTENTS))
def test_the_same_intent_is_the_same_request(intent: Intent, dialect: Dialect) -> None:
    native, model = dialect.native(intent), dialect.model(intent)
    request = Request.parse({"model": model, **copy.deepcopy(intent.ours)})
    ours = we_send(dialect, lambda provider: provider.stream(request) if request.stream else provider.complete(request))
    if isinstance(native, Refused):
        assert isinstance(ours, InvalidRequest)
        assert without_places(ours.field) == native.field
        return
    told = native if isinstance(native, Told) else Told(native or {})
    theirs = sdk_sends(dialect.ask, dialect, model=model, **always(dialect, told.kwargs))
    assert isinstance(ours, Sent), ours
    assert ours.body == theirs.body
    assert ours == theirs
    assert fields_of(provider_of(dialect, Notes()).warnings(request)) == set(told.warnings)


@pytest.mark.parametrize(("intent", "dialect"), comparisons(EMBEDDINGS))
def test_the_same_texts_are_asked_for_in_the_same_way(intent: Intent, dialect: Dialect) -> None:
    native, model = dialect.native(intent), dialect.model(intent)
    request = EmbeddingRequest.parse({"model": model, **intent.ours})
    ours = we_send(dialect, lambda provider: provider.embed(request))
    if isinstance(native, Refused):
        assert isinstance(ours, InvalidRequest)
        assert without_places(ours.field) == native.field
        return
    assert dialect.embed is not None
    assert isinstance(native, dict)
    assert ours == sdk_sends(dialect.embed, dialect, model=model, **native)


@pytest.mark.parametrize("intent", COUNTS, ids=repr)
def test_the_same_tokens_are_counted(intent: Intent) -> None:
    dialect = next(dialect for dialect in DIALECTS if dialect.version == "2026-10-21")
    request = Request.parse({"model": MODELS["anthropic"], **intent.ours})
    assert isinstance(intent.anthropic, dict)
    expected = sdk_sends(count_anthropic, dialect, model=MODELS["anthropic"], **intent.anthropic)
    assert we_send(dialect, lambda provider: provider.count(request)) == expected


def test_the_table_is_broad() -> None:
    """A row that compares nothing, or a column that was forgotten, would not fail anywhere else."""
    compared = [intent for intent in INTENTS if any(dialect.native(intent) is not None for dialect in DIALECTS)]
    assert len(compared) >= 40
    assert len({intent.name for intent in compared}) == len(compared)


def test_a_compatible_server_is_asked_at_its_address_in_the_older_words() -> None:
    dialect = Dialect("openai", "openai", ask_openai, same_chat, base_url="http://127.0.0.1:9/v1?api-version=1")

    def ask(notes: Notes, **kwargs: Any) -> None:
        with httpx2.Client(transport=httpx2.MockTransport(notes.refuse_v2)) as client:
            openai.OpenAI(
                api_key=KEY,
                base_url="http://127.0.0.1:9/v1",
                default_query={"api-version": "1"},
                max_retries=0,
                http_client=client,
            ).chat.completions.create(**kwargs)

    asked = {"model": "m", "messages": [{"role": "developer", "content": "Be brief."}, HI], "max_tokens": 9}
    request = Request.parse(asked)
    theirs = sdk_sends(ask, dialect, model="m", messages=[BRIEF, HI], max_tokens=9)
    ours = we_send(dialect, lambda provider: provider.complete(request), key=KEY)
    assert ours == theirs


def test_azure_is_asked_as_its_own_client_asks() -> None:
    """By deployment and version in the address, with a header of its own for the key."""
    where = "https://duck.openai.azure.com"
    dialect = Dialect("openai", "azure", ask_openai, same_chat, version="2024-10-21", base_url=where)

    def ask(notes: Notes, **kwargs: Any) -> None:
        with httpx2.Client(transport=httpx2.MockTransport(notes.refuse_v2)) as client:
            openai.AzureOpenAI(
                api_key=KEY, azure_endpoint=where, api_version="2024-10-21", max_retries=0, http_client=client
            ).chat.completions.create(**kwargs)

    request = Request.parse({"model": "gpt-4.1", "messages": [HI]})
    theirs = sdk_sends(ask, dialect, model="gpt-4.1", messages=[HI])
    assert we_send(dialect, lambda provider: provider.complete(request), key=KEY) == theirs
