"""No field of a request is dropped silently: each is sent by every adapter, refused, or named in a warning.

For each field there are requests that are alike but for it. Whatever two of them are to an adapter, they are not one
and the same: they go out as different bytes, or one of them is refused by the name of the field, or warned of by it.
A field that is new in the types has to be told of here.
"""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from tests_every_field import HI, NOT_SAID, PROBES, Fields, asking

from rubberduck.config import ProviderConfig
from rubberduck.errors import InvalidRequest
from rubberduck.providers import resolve
from rubberduck.providers.http import HTTPProvider
from rubberduck.providers.local import provider as local
from rubberduck.providers.openai.compatible import Compatible
from rubberduck.types import EmbeddingRequest, Request

# --- every adapter


@cache
def adapters() -> dict[str, tuple[HTTPProvider, str]]:
    """Each adapter with the models for which it writes differently."""
    found: dict[str, tuple[HTTPProvider, str]] = {}

    def add(word: str, *models: str, label: str = "", **options: Any) -> None:
        provider = resolve(word).init(ProviderConfig(name=word, module=word, api_keys=("k",), **options))
        found.update({f"{label or word} {model}": (provider, model) for model in models})

    claudes = ("claude-haiku-3-5", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8", "claude-fable-5", "else")
    add("openai", "gpt-4.1", "gpt-5", "gpt-5.1", "gpt-5.6")
    add("openai", "m", "gpt-5.6", label="openai-elsewhere", base_url="https://a.example/v1")
    add("openai_responses", "gpt-4.1", "gpt-5", "gpt-5.1", "gpt-5.6")
    add("openai_responses", "m", label="responses-elsewhere", base_url="https://a.example/v1")
    for version in ("2023-06-01", "2026-10-21"):
        add("anthropic", *claudes, label=f"anthropic-{version}", version=version)
    add("ollama", "qwen3", "gpt-oss:cloud")
    add("local", "m", label="local-server", base_url="http://127.0.0.1:1/v1")
    for row in Compatible.__subclasses__():
        where = (
            {"base_url": "https://a.openai.azure.com", "version": "2024-10-21"} if row.dialect.word == "azure" else {}
        )
        add(row.dialect.word, "m", "gpt-5.6", **where)
    return found


WORDS = list(adapters())


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[HTTPProvider, str]:
    """The provider of an embedded model; its engine is not started, for nothing is sent."""
    monkeypatch.setattr(local.local_model, "has_engine", lambda: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "tiny.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + bytes(2000))
    config = ProviderConfig(name="local", module="local", model_path=str(path), options={"embeddings": True})
    return local.LocalProvider.init(config), "tiny"


# --- the law


@cache
def parsed(path_of: str, at: int, which: int) -> Request:
    return Request.parse({"model": "m", **PROBES[path_of][at].requests[which]})


def is_about(told: str | None, path: str) -> bool:
    """Whether a name tells of a field: itself, what it stands in, or something in it."""
    if told == "tools" and path in ("tool_choice", "parallel_tool_calls"):
        return True  # a choice among what cannot be had
    return told is not None and (f"{path}.".startswith(f"{told}.") or f"{told}.".startswith(f"{path}."))


def outcome(provider: HTTPProvider, request: Request, path: str) -> str:
    """What becomes of a request: its bytes, unless it is refused or warned of by the name of the field."""
    try:
        sent = json.dumps(provider.encode(request), sort_keys=True)
    except InvalidRequest as error:
        return "refused" if is_about(error.field, path) else f"refused by the wrong name: {error.field}"
    if any(is_about(text.split()[0], path) for text in provider.warnings(request)):
        return "named"
    return sent


def dropped(provider: HTTPProvider, model: str) -> list[str]:
    """The fields of which an adapter makes nothing and says nothing, by the numbers of the requests that are alike."""
    faults = []
    for name, probes in PROBES.items():
        for at, probe in enumerate(probes):
            requests = [parsed(name, at, which) for which in range(len(probe.requests))]
            told = [outcome(provider, each.model_copy(update={"model": model}), probe.path) for each in requests]
            if all(each.startswith("refused") for each in told):
                continue  # the field stands in something that is refused
            sent = [each for each in told if each not in ("refused", "named")]
            if len(set(sent)) < len(sent) or any(each.startswith("refused by") for each in sent):
                faults.append(f"{name}, {at}: {[told.index(each) if each in sent else each for each in told]}")
    return faults


@pytest.mark.parametrize("word", WORDS)
def test_each_field_is_sent_or_refused_or_named(word: str) -> None:
    assert dropped(*adapters()[word]) == []


def test_an_embedded_model_too_is_told_each_field_or_names_it(engine: tuple[HTTPProvider, str]) -> None:
    assert dropped(*engine) == []


# --- that no field is forgotten


def models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {found for inner in get_args(annotation) for found in models_in(inner)}


def reachable(kind: type[BaseModel]) -> set[type[BaseModel]]:
    """A type of request, and all types of values in it."""
    known: set[type[BaseModel]] = set()
    waiting = {kind}
    while waiting:
        known |= waiting
        fields = [field.annotation for each in waiting for field in each.model_fields.values()]
        waiting = {found for annotation in fields for found in models_in(annotation)} - known
    return known


def is_tag(annotation: Any) -> bool:
    """Whether a field has one value only, by which its type is told from others."""
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def fields_of(kind: type[BaseModel]) -> set[str]:
    return {
        f"{each.__name__}.{name}"
        for each in reachable(kind)
        for name, field in each.model_fields.items()
        if not is_tag(field.annotation)
    }


def test_every_field_of_a_request_has_its_requests() -> None:
    unsaid = {name for name in fields_of(Request) if name in NOT_SAID or f"{name.split('.')[0]}.*" in NOT_SAID}
    assert fields_of(Request) - unsaid == PROBES.keys()
    assert not unsaid & PROBES.keys()


def test_a_new_field_would_be_found_wherever_it_is() -> None:
    class Deep(BaseModel):
        kind: Literal["deep"] = "deep"
        told: int = 0

    class Wide(BaseModel):
        parts: Annotated[tuple[Deep | str, ...], "in a list"] | None = None
        named: dict[str, list[Deep]] = {}

    assert fields_of(Wide) == {"Wide.parts", "Wide.named", "Deep.told"}


def test_a_field_that_an_adapter_drops_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    provider, model = adapters()["openai gpt-4.1"]
    encode = provider.encode

    def forgetful(request: Request) -> Any:
        path, headers, body = encode(request)
        return path, headers, {name: value for name, value in body.items() if name != "seed"}

    monkeypatch.setattr(provider, "encode", forgetful)
    assert dropped(provider, model) == ["Request.seed, 0: [0, 0, 0]"]


def test_the_model_is_named_in_the_body_or_in_the_address() -> None:
    for provider, model in adapters().values():
        one, other = (provider.encode(Request.parse({"model": name, **asking(HI)})) for name in (model, f"{model}-2"))
        assert one != other


# --- vectors

TEXTS = {
    "EmbeddingRequest.model": [{"model": "m"}, {"model": "n"}],
    "EmbeddingRequest.input": [{"input": ["a"]}, {"input": ["b"]}, {"input": ["a", "b"]}, {"input": [[1, 2]]}],
    "EmbeddingRequest.dimensions": [{}, {"dimensions": 8}, {"dimensions": 16}],
    "EmbeddingRequest.user": [{}, {"user": "a"}, {"user": "b"}],
    "EmbeddingRequest.extra": [{}, {"extra": {"x": 1}}, {"extra": {"x": 2}}],
}


def embedded(provider: HTTPProvider, fields: Fields, name: str) -> str:
    request = EmbeddingRequest.parse({"model": "m", "input": ["a"], **fields})
    try:
        sent = json.dumps(provider.encode_embedding(request), sort_keys=True)
    except InvalidRequest as error:
        return "refused" if error.field == name else f"refused by the wrong name: {error.field}"
    return "named" if any(text.split()[0] == name for text in provider.embedding_warnings(request)) else sent


def dropped_of_texts(provider: HTTPProvider) -> list[str]:
    faults = []
    for path, requests in TEXTS.items():
        told = [embedded(provider, fields, path.split(".")[1]) for fields in requests]
        sent = [each for each in told if each not in ("refused", "named")]
        if len(set(sent)) < len(sent) or any(each.startswith("refused by") for each in sent):
            faults.append(f"{path}: {told}")
    return faults


def test_each_field_of_a_request_for_vectors_is_sent_or_refused_or_named(engine: tuple[HTTPProvider, str]) -> None:
    offering = [provider for provider, _ in (*adapters().values(), engine) if "embeddings" in provider.offers]
    assert [fault for provider in offering for fault in dropped_of_texts(provider)] == []
    assert fields_of(EmbeddingRequest) == TEXTS.keys()
