"""What each server with OpenAI's chat format is sent, where that is not what OpenAI would be sent."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from rubberduck import errors
from rubberduck.config import ProviderConfig
from rubberduck.providers.base import Provider
from rubberduck.providers.openai import compatible, compatible_table
from rubberduck.wiring import _vendor

WORDS = [row.dialect.word for row in compatible.Compatible.__subclasses__()]
WEATHER = {"function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CLOCK = {"function": {"name": "clock"}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
FILE = {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}}
MISTRALS = {
    "input_audio": {"type": "input_audio", "input_audio": "AAAA"},
    "file": {
        "type": "document_url", "document_url": "data:application/pdf;base64,JVBE", "document_name": "a.pdf",
    },
}  # fmt: skip
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
AZURE = "https://me.openai.azure.com"


def made(make: Any, word: str, **options: Any) -> Provider:
    options.setdefault("api_keys", ["test-key"])
    if word == "azure":
        options = {"base_url": AZURE, "version": "2024-10-21"} | options
    return make(word, **options)


def sent(make: Any, word: str, request: Any) -> dict[str, Any]:
    return made(make, word).encode(request)[2]


def warned(make: Any, word: str, request: Any) -> list[str]:
    return [text.split()[0] for text in made(make, word).warnings(request)]


def asking(part: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def called(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


# --- the table


def test_every_row_is_a_word_of_the_configuration() -> None:
    rows = [row for row in vars(compatible_table).values() if isinstance(row, compatible_table.Dialect)]
    assert {row.word for row in rows} == {*WORDS, "openai"}
    for row in rows:
        assert row.fields <= compatible_table.OPTIONAL


@pytest.mark.parametrize("word", WORDS)
def test_every_field_is_sent_or_named_or_refused(make: Any, ask: Any, word: str) -> None:
    values = {
        "temperature": 0.5, "top_p": 0.5, "top_k": 5, "stop": ["x"], "seed": 7, "presence_penalty": 0.1,
        "frequency_penalty": 0.1, "logit_bias": {"1": 1.0}, "logprobs": True, "top_logprobs": 2, "verbosity": "low",
        "response_format": SCHEMA, "reasoning_effort": "low", "reasoning_budget": 2000, "reasoning_summary": "auto",
        "metadata": {"a": "b"}, "service_tier": "flex", "prompt_cache_key": "k", "user": "u", "max_tokens": 9,
        "cache_control": {"type": "ephemeral"},
    }  # fmt: skip
    plain = sent(make, word, ask("m"))
    for name, value in values.items():
        request = ask("m", **({"logprobs": True} if name == "top_logprobs" else {}), **{name: value})
        changed = sent(make, word, request) != plain
        assert changed or any(text.startswith(name) for text in warned(make, word, request)), name


def refused_for(make: Any, word: str, request: Any) -> str | None:
    """The field for which a request is refused."""
    try:
        sent(make, word, request)
    except errors.InvalidRequest as error:
        return error.field
    return None


def test_who_gives_one_answer_only_refuses_to_give_more(make: Any, ask: Any) -> None:
    request = ask("m", n=2)
    refusing = {word for word in WORDS if refused_for(make, word, request) == "n"}
    assert refusing == {"groq", "deepseek", "openrouter"}
    assert all(sent(make, word, request)["n"] == 2 for word in WORDS if word not in refusing)


def test_what_servers_take_beside_text_and_the_rest_is_refused(make: Any, ask: Any) -> None:
    takes = dict.fromkeys(WORDS, "")
    for word in WORDS:
        for part in (IMAGE, AUDIO, FILE):
            shown = MISTRALS.get(part["type"], part) if word == "mistral" else part
            request = ask("m", messages=asking(part))
            if (field := refused_for(make, word, request)) is not None:
                assert field == "messages.content"
                continue
            assert sent(make, word, request)["messages"][0]["content"] == [shown]
            takes[word] += part["type"][0]
    assert takes == {
        "azure": "iif", "groq": "i", "mistral": "iif", "deepseek": "", "openrouter": "iif", "together": "ii",
        "vllm": "ii", "llama_server": "ii", "xai": "i", "perplexity": "i", "gemini": "ii",
    }  # fmt: skip


# --- keys and addresses


@pytest.mark.parametrize("word", [word for word in WORDS if word != "azure"])
def test_the_environments_key_goes_to_the_vendor_and_nobody_else(
    make: Any, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in compatible.Compatible.__subclasses__() if row.dialect.word == word)
    monkeypatch.setenv(row.key_variable, "from-environment")
    assert make(word).encode(_request())[1] == {"Authorization": "Bearer from-environment"}
    assert make(word, base_url="https://else.example/v1").encode(_request())[1] == {}
    monkeypatch.delenv(row.key_variable)
    if row.dialect.needs_key:
        with pytest.raises(errors.MissingApiKey):
            make(word)
    else:
        assert make(word).encode(_request())[1] == {}


def _request() -> Any:
    from rubberduck.types import Request

    return Request.parse({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})


@pytest.mark.parametrize(
    ("base_url", "version", "url"),
    [
        (AZURE, "2024-10-21", f"{AZURE}/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"),
        (f"{AZURE}/openai", "v", f"{AZURE}/openai/deployments/my%20gpt/chat/completions?api-version=v"),
        (f"{AZURE}/openai/deployments/d", "v", f"{AZURE}/openai/deployments/d/chat/completions?api-version=v"),
        (f"{AZURE}/openai/v1", None, f"{AZURE}/openai/v1/chat/completions"),
        (f"{AZURE}/openai/v1", "preview", f"{AZURE}/openai/v1/chat/completions?api-version=preview"),
        (
            "https://me.services.ai.azure.com/models?api-version=w",
            None,
            "https://me.services.ai.azure.com/models/chat/completions?api-version=w",
        ),
    ],
)
def test_azure_has_several_addresses(
    make: Any, vendor: Any, run: Any, ask: Any, base_url: str, version: str | None, url: str
) -> None:
    server = vendor(httpx.Response(200, json={"choices": [{"message": {"content": "Hi"}}], "usage": {}}))
    run(make("azure", server, base_url=base_url, version=version).complete(ask("my gpt")))
    assert str(server.requests[0].url) == url
    assert server.requests[0].headers["api-key"] == "test-key"
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("options", [{}, {"base_url": AZURE}])
def test_azure_needs_an_address_and_a_version(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(errors.ConfigError, match="base_url" if not options else "version"):
        make("azure", api_keys=["k"], **options)


def test_prices_hold_at_the_vendor_only(make: Any) -> None:
    assert _vendor(made(make, "xai")) == "x-ai"
    assert _vendor(made(make, "azure")) == "azure"
    assert _vendor(made(make, "azure", base_url="https://proxy.example/openai/v1")) == ""
    assert _vendor(made(make, "groq", base_url="https://else.example/v1")) == ""
    assert _vendor(made(make, "gemini")) == "google"


def test_a_vendor_has_its_own_models_and_any_other_the_configured(make: Any) -> None:
    assert made(make, "mistral").supports_model("mistral-large-latest")
    assert not made(make, "mistral").supports_model("gpt-4o")
    assert made(make, "mistral", models=["gpt-4o"]).supports_model("gpt-4o")
    assert made(make, "groq").supports_model("openai/gpt-oss-20b")
    assert not made(make, "groq", models=["a"]).supports_model("b")


# --- requests


def test_the_bound_of_an_answer_has_two_names(make: Any, ask: Any) -> None:
    request = ask("m", max_tokens=9)
    newer = {word for word in WORDS if "max_completion_tokens" in sent(make, word, request)}
    assert newer == {"azure", "groq", "xai"}
    assert all(sent(make, word, request)["max_tokens"] == 9 for word in WORDS if word not in newer)


def test_mistral_has_words_of_its_own(make: Any, ask: Any) -> None:
    body = sent(make, "mistral", ask("m", seed=7, tools=[WEATHER], tool_choice="required", stream=True))
    assert (body["random_seed"], body["tool_choice"]) == (7, "any")
    assert "seed" not in body
    assert "stream_options" not in body


def test_mistrals_ids_have_nine_letters_and_still_belong_together(make: Any, ask: Any) -> None:
    messages = [
        {"role": "assistant", "tool_calls": [called("call_made_elsewhere"), called("abcdefghi"), called("call_b")]},
        {"role": "tool", "tool_call_id": "call_b", "content": "b"},
        {"role": "tool", "tool_call_id": "call_made_elsewhere", "content": "a"},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "c"},
    ]
    turns = sent(make, "mistral", ask("m", messages=messages))["messages"]
    first, second, third = (call["id"] for call in turns[0]["tool_calls"])
    assert second == "abcdefghi"
    assert [turn["tool_call_id"] for turn in turns[1:]] == [third, first, second]
    assert all(len(each) == 9 and each.isalnum() and each.isascii() for each in (first, third))


@pytest.mark.parametrize("word", ["openai", "azure"])
def test_ids_that_are_too_long_for_openai_are_shortened_and_still_belong_together(
    word: str, make: Any, ask: Any
) -> None:
    long, other = "chatcmpl-tool-" + "a" * 32, "chatcmpl-tool-" + "b" * 32
    messages = [
        {"role": "assistant", "tool_calls": [called(long), called(other), called("x" * 40)]},
        {"role": "tool", "tool_call_id": other, "content": "b"},
        {"role": "tool", "tool_call_id": long, "content": "a"},
        {"role": "tool", "tool_call_id": "x" * 40, "content": "c"},
    ]
    turns = sent(make, word, ask("gpt-4o", messages=messages))["messages"]
    first, second, third = (call["id"] for call in turns[0]["tool_calls"])
    assert third == "x" * 40
    assert [turn["tool_call_id"] for turn in turns[1:]] == [second, first, third]
    assert len({first, second, third}) == 3
    assert max(len(first), len(second)) <= 40


def test_deepseek_is_told_a_schema_and_says_so(make: Any, ask: Any) -> None:
    request = ask("m", response_format=SCHEMA)
    body = sent(make, "deepseek", request)
    assert body["response_format"] == {"type": "json_object"}
    assert body["messages"][0]["role"] == "system"
    assert '{"type": "object"}' in body["messages"][0]["content"]
    assert warned(make, "deepseek", request) == ["response_format"]


def test_deepseek_sees_the_reasoning_before_a_call_and_no_other(make: Any, ask: Any) -> None:
    messages = [
        {"role": "assistant", "content": "a", "reasoning": "hm"},
        {"role": "assistant", "tool_calls": [called("x")], "reasoning": "so"},
        {"role": "tool", "tool_call_id": "x", "content": "a"},
        {"role": "assistant", "tool_calls": [called("y")]},
    ]
    turns = sent(make, "deepseek", ask("m", messages=messages))["messages"]
    assert [turn.get("reasoning_content") for turn in turns] == [None, "so", None, ""]


@pytest.mark.parametrize(
    ("effort", "expected"),
    [
        ("none", {"thinking": {"type": "disabled"}}),
        ("high", {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
    ],
)
def test_deepseek_has_a_switch_for_thinking(make: Any, ask: Any, effort: str, expected: dict[str, Any]) -> None:
    assert expected.items() <= sent(make, "deepseek", ask("m", reasoning_effort=effort)).items()


def test_openrouter_takes_an_effort_or_a_budget(make: Any, ask: Any) -> None:
    assert sent(make, "openrouter", ask("m", reasoning_effort="low"))["reasoning"] == {"effort": "low"}
    both = ask("m", reasoning_effort="low", reasoning_budget=2000)
    assert sent(make, "openrouter", both)["reasoning"] == {"max_tokens": 2000}
    assert warned(make, "openrouter", both) == ["reasoning_effort"]
    assert sent(make, "openrouter", ask("m"))["usage"] == {"include": True}


def test_openrouter_marks_where_to_cache_up_to_and_fetches_files(make: Any, ask: Any) -> None:
    mark = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = sent(make, "openrouter", ask("m", **mark))
    assert body["messages"][0]["content"] == [{"type": "text", "text": "Hi", **mark}]
    part = {"type": "text", "text": "a", **mark}
    assert sent(make, "openrouter", ask("m", messages=asking(part)))["messages"][0]["content"] == [part]
    file = {"type": "file", "file": {"file_url": "https://x.example/a.pdf"}}
    shown = sent(make, "openrouter", ask("m", messages=asking(file)))["messages"][0]["content"]
    assert shown == [{"type": "file", "file": {"file_data": "https://x.example/a.pdf"}}]


def test_openrouter_is_told_which_tools_to_cache_and_the_others_are_not(make: Any, ask: Any) -> None:
    request = ask("m", tools=[WEATHER, CLOCK | {"cache_control": {"type": "ephemeral", "ttl": "1h"}}])
    first, second = sent(make, "openrouter", request)["tools"]
    assert "cache_control" not in first
    assert second == {
        "type": "function",
        "function": {"name": "clock"},
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
    assert warned(make, "openrouter", request) == []
    assert warned(make, "groq", request) == ["tools.cache_control"]
    assert "cache_control" not in sent(make, "groq", request)["tools"][1]


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ({"file_id": "f"}, {"type": "file", "file_id": "f"}),
        ({"file_url": "https://x.example/a"}, {"type": "document_url", "document_url": "https://x.example/a"}),
    ],
)
def test_mistral_takes_a_file_by_its_id_or_behind_a_url(
    make: Any, ask: Any, file: dict[str, Any], shown: dict[str, Any]
) -> None:
    request = ask("m", messages=asking({"type": "file", "file": file}))
    assert sent(make, "mistral", request)["messages"][0]["content"] == [shown]


def test_together_counts_probabilities(make: Any, ask: Any) -> None:
    assert sent(make, "together", ask("m", logprobs=True, top_logprobs=3))["logprobs"] == 3
    assert sent(make, "together", ask("m", logprobs=True))["logprobs"] == 1


def test_llama_server_is_shown_the_named_tool_alone_since_it_takes_no_name(make: Any, ask: Any) -> None:
    body = sent(make, "llama_server", ask("m", tools=[WEATHER, CLOCK], tool_choice={"function": {"name": "clock"}}))
    assert ([tool["function"]["name"] for tool in body["tools"]], body["tool_choice"]) == (["clock"], "required")
    with pytest.raises(errors.InvalidRequest) as caught:
        sent(make, "llama_server", ask("m", tools=[WEATHER], tool_choice={"function": {"name": "clock"}}))
    assert caught.value.field == "tool_choice"


@pytest.mark.parametrize("word", [word for word in WORDS if word not in ("azure", "perplexity")])
def test_allowed_tools_are_the_only_ones_shown(make: Any, ask: Any, word: str) -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "names": ["clock"]}
    body = sent(make, word, ask("m", tools=[WEATHER, CLOCK], tool_choice=choice))
    assert ([tool["function"]["name"] for tool in body["tools"]], body["tool_choice"]) == (["clock"], "auto")


@pytest.mark.parametrize("word", [word for word in WORDS if word not in ("azure", "perplexity")])
def test_tools_of_free_text_are_refused_and_calls_of_them_told_as_functions(make: Any, ask: Any, word: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        sent(make, word, ask("m", tools=[{"type": "custom", "custom": {"name": "shell"}}]))
    assert caught.value.field == "tools"
    call = {"id": "abcdefghi", "type": "custom", "function": {"name": "shell", "arguments": 'say "a"'}}
    turn = sent(make, word, ask("m", messages=[{"role": "assistant", "tool_calls": [call]}]))["messages"][0]
    assert turn["tool_calls"][0]["type"] == "function"
    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"input": 'say "a"'}


def test_perplexity_calls_no_tools(make: Any, ask: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        sent(make, "perplexity", ask("m", tools=[WEATHER]))
    assert caught.value.field == "tools"
    assert "tools" not in sent(make, "perplexity", ask("m", tools=[WEATHER], tool_choice="none"))


def test_names_and_failures_that_have_no_field_are_told(make: Any, ask: Any) -> None:
    messages = [
        {"role": "user", "content": "a", "name": "ann"},
        {"role": "assistant", "tool_calls": [called("abcdefghi")]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "no", "is_error": True},
    ]
    request = ask("m", messages=messages)
    assert warned(make, "groq", request) == ["messages.name", "messages.is_error"]
    assert "name" not in sent(make, "groq", request)["messages"][0]


# --- what goes back as it came

DETAILS = [{"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}]


def native(format_: str, model: str, *items: Any) -> dict[str, Any]:
    return {"format": format_, "model": model, "items": list(items)}


@pytest.mark.parametrize(
    ("word", "model", "goes_back"),
    [
        ("openrouter", "anthropic/claude-sonnet-4", True),
        ("openrouter", "openai/gpt-5", False),
        ("groq", "anthropic/claude-sonnet-4", False),
    ],
)
def test_sealed_reasoning_goes_back_to_the_same_vendor_through_the_same_router(
    make: Any, ask: Any, word: str, model: str, goes_back: bool
) -> None:
    told = native("openrouter", "anthropic/claude-4-sonnet-20250522", *DETAILS)
    turn = sent(make, word, ask(model, messages=[{"role": "assistant", "content": "a", "native": told}]))["messages"][0]
    assert turn == {"role": "assistant", "content": "a"} | ({"reasoning_details": DETAILS} if goes_back else {})


def test_geminis_signature_goes_back_in_its_call(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    seal = {"google": {"thought_signature": "s"}}
    said = {"role": "assistant", "content": None, "tool_calls": [called("") | {"extra_content": seal}, called("b")]}
    reply = {"id": "1", "model": "gemini-3-pro", "choices": [{"message": said, "finish_reason": "tool_calls"}]}
    server = vendor(httpx.Response(200, json=reply | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}))
    message = run(make("gemini", server).complete(ask("gemini-3-pro"))).choices[0].message
    turn = sent(make, "gemini", ask("gemini-3-pro", messages=[message.model_dump()]))["messages"][0]
    assert turn["tool_calls"][0]["id"]
    assert [call.get("extra_content") for call in turn["tool_calls"]] == [seal, None]


# --- vectors


def test_who_offers_vectors(make: Any) -> None:
    offering = {word for word in WORDS if "embeddings" in made(make, word).offers}
    assert offering == set(WORDS) - {"deepseek", "xai", "perplexity"}


def test_vectors_are_asked_for_in_each_ones_words(make: Any) -> None:
    from rubberduck.types import EmbeddingRequest

    request = EmbeddingRequest.parse({"model": "m", "input": "a", "dimensions": 2, "user": "u"})
    path, _, body = made(make, "mistral").encode_embedding(request)
    assert (path, body) == ("/embeddings", {"model": "m", "input": ["a"], "output_dimension": 2})
    assert made(make, "azure").encode_embedding(request)[0] == "/openai/deployments/m/embeddings"
    assert made(make, "vllm").encode_embedding(request)[2]["encoding_format"] == "base64"
    named = EmbeddingRequest.parse({"model": "m", "input": ["a"], "user": "u"})
    for word in ("mistral", "azure"):
        is_sent = "user" in made(make, word).encode_embedding(named)[2]
        assert bool(made(make, word).embedding_warnings(named)) is not is_sent


def test_an_unknown_word_of_a_dialect_is_not_in_the_configuration() -> None:
    for word in WORDS:
        assert ProviderConfig(name=word).module == word
