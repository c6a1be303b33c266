"""Each field of a request, as each server with OpenAI's chat format is sent it: literally, with what is said of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from rubberduck import errors
from rubberduck.types import EmbeddingRequest

HINTS = {"metadata": {"a": "b"}, "service_tier": "flex", "prompt_cache_key": "k", "user": "u"}
SAMPLING = {
    "temperature": 0.5, "top_p": 0.5, "stop": ["x"], "seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.1,
}  # fmt: skip
ODDS = {"logprobs": True, "top_logprobs": 2}
EVERYTHING = HINTS | SAMPLING | ODDS | {"top_k": 5, "logit_bias": {"1": 1.0}, "n": 2, "verbosity": "low"}
PENALTIES = {"frequency_penalty", "presence_penalty"}
SENT: dict[str, dict[str, Any]] = {
    "azure": HINTS | SAMPLING | ODDS | {"logit_bias": {"1": 1.0}, "n": 2, "verbosity": "low"},
    "groq": {"temperature": 0.5, "top_p": 0.5, "stop": ["x"], "seed": 7, "service_tier": "flex", "user": "u"},
    "mistral": {
        "temperature": 0.5, "top_p": 0.5, "stop": ["x"], "random_seed": 7, "presence_penalty": 0.1,
        "frequency_penalty": 0.1, "logprobs": True, "top_logprobs": 2, "top_k": 5, "n": 2, "metadata": {"a": "b"},
        "service_tier": "flex", "prompt_cache_key": "k",
    },
    "deepseek": {
        "temperature": 0.5, "top_p": 0.5, "stop": ["x"], "presence_penalty": 0.1, "frequency_penalty": 0.1,
        "logprobs": True, "top_logprobs": 2,
    },
    "openrouter": HINTS | SAMPLING | ODDS | {
        "top_k": 5, "logit_bias": {"1": 1.0}, "verbosity": "low", "usage": {"include": True},
    },
    "together": SAMPLING | {"logprobs": 2, "top_k": 5, "logit_bias": {"1": 1.0}, "n": 2},
    "vllm": SAMPLING | ODDS | {"top_k": 5, "logit_bias": {"1": 1.0}, "n": 2, "user": "u"},
    "llama_server": SAMPLING | ODDS | {"top_k": 5, "logit_bias": {"1": 1.0}, "n": 2},
    "xai": SAMPLING | ODDS | {"logit_bias": {"1": 1.0}, "n": 2, "service_tier": "flex", "user": "u"},
    "perplexity": {
        "temperature": 0.5, "top_p": 0.5, "stop": ["x"], "presence_penalty": 0.1, "frequency_penalty": 0.1,
        "logprobs": True, "top_logprobs": 2, "top_k": 5, "n": 2,
    },
    "gemini": {"temperature": 0.5, "top_p": 0.5, "stop": ["x"], "logprobs": True, "top_logprobs": 2, "n": 2},
}  # fmt: skip
WARNED = {
    "azure": {"top_k"},
    "groq": {"top_k", "logit_bias", "logprobs", "top_logprobs", "verbosity", "metadata", "prompt_cache_key"}
    | PENALTIES,
    "mistral": {"logit_bias", "user", "verbosity"},
    "deepseek": {"top_k", "logit_bias", "seed", "verbosity", *HINTS},
    "openrouter": set(),
    "together": {"verbosity", *HINTS},
    "vllm": {"verbosity", "metadata", "service_tier", "prompt_cache_key"},
    "llama_server": {"verbosity", *HINTS},
    "xai": {"top_k", "verbosity", "metadata", "prompt_cache_key"},
    "perplexity": {"logit_bias", "seed", "verbosity", *HINTS},
    "gemini": {"top_k", "logit_bias", "seed", "verbosity", *PENALTIES, *HINTS},
}
ONE_ANSWER = ("groq", "deepseek", "openrouter")
IDLE = {"temperature", "top_p", *PENALTIES}
CLOCK = {"function": {"name": "clock"}}


def made(make: Any, word: str) -> Any:
    options = {"base_url": "https://me.openai.azure.com", "version": "2024-10-21"} if word == "azure" else {}
    return make(word, api_keys=["test-key"], **options)


def sent(make: Any, word: str, request: Any) -> dict[str, Any]:
    """What a server is sent beside the model and the messages."""
    body = made(make, word).encode(request)[2]
    return {name: value for name, value in body.items() if name not in ("model", "messages")}


def warnings(make: Any, word: str, request: Any) -> list[str]:
    return list(made(make, word).warnings(request))


def refused(make: Any, word: str, request: Any) -> str | None:
    with pytest.raises(errors.InvalidRequest) as caught:
        made(make, word).encode(request)
    return caught.value.field


@pytest.mark.parametrize("word", SENT)
def test_each_server_is_sent_the_fields_that_it_has(make: Any, ask: Any, word: str) -> None:
    fields = EVERYTHING | ({"n": 1} if word in ONE_ANSWER else {})
    assert sent(make, word, ask("m", **fields)) == SENT[word]


@pytest.mark.parametrize("word", SENT)
def test_each_field_that_a_server_has_not_is_named(make: Any, ask: Any, word: str) -> None:
    texts = warnings(make, word, ask("m", **EVERYTHING))
    if word == "deepseek":
        texts = [text for text in texts if " thinks" not in text]
    assert {text.partition(" ")[0] for text in texts} == WARNED[word]
    assert all(text == f"{text.partition(' ')[0]} is not sent: {word} has no such parameter" for text in texts)


@pytest.mark.parametrize("word", [word for word in SENT if word != "perplexity"])
def test_calls_one_by_one_are_asked_for_where_that_is_possible(make: Any, ask: Any, word: str) -> None:
    request = ask("m", tools=[CLOCK], parallel_tool_calls=False)
    if word == "deepseek":
        assert "parallel_tool_calls" not in sent(make, word, request)
        assert warnings(make, word, request) == ["parallel_tool_calls is not sent: deepseek has no such parameter"]
        return
    assert sent(make, word, request)["parallel_tool_calls"] is False
    assert warnings(make, word, request) == []


@pytest.mark.parametrize("word", SENT)
def test_a_stream_is_asked_for_its_usage_where_it_has_to_be_asked(make: Any, ask: Any, word: str) -> None:
    body = sent(make, word, ask("m", stream=True, extra={"stream_options": {"include_obfuscation": False}}))
    asked = {} if word in ("mistral", "perplexity") else {"include_usage": True}
    assert body["stream_options"] == {"include_obfuscation": False} | asked
    assert "stream_options" not in sent(make, word, ask("m"))


NAMED: dict[str, set[str]] = {word: {"system", "user", "assistant", "tool"} for word in SENT}
NAMED |= {"groq": set(), "mistral": {"tool"}, "xai": {"user"}, "perplexity": set(), "gemini": set()}


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
@pytest.mark.parametrize("word", SENT)
def test_a_participants_name_is_sent_where_it_is_known_to_be_taken(make: Any, ask: Any, word: str, role: str) -> None:
    message = {"role": role, "content": "Hi", "name": "ann"} | ({"tool_call_id": "abcdefghi"} if role == "tool" else {})
    request = ask("m", messages=[message])
    turn = made(make, word).encode(request)[2]["messages"][0]
    said = warnings(make, word, request)
    if role in NAMED[word]:
        assert (turn, said) == (message, [])
        return
    assert turn == {name: value for name, value in message.items() if name != "name"}
    beside = f" beside role {role}" if NAMED[word] else ""
    assert said == [f"messages.name is not sent: {word} has no such field{beside}"]


# --- where to stop


@pytest.mark.parametrize(
    ("word", "most"), [("openai", 4), ("azure", 4), ("groq", 4), ("openrouter", 4), ("deepseek", 16)]
)
def test_more_stop_sequences_than_a_server_takes_are_refused_before_it_is_asked(
    make: Any, ask: Any, word: str, most: int
) -> None:
    enough = [f"s{number}" for number in range(most)]
    assert sent(make, word, ask("m", stop=enough))["stop"] == enough
    assert refused(make, word, ask("m", stop=[*enough, "one more"])) == "stop"


@pytest.mark.parametrize("word", ["mistral", "together", "vllm", "llama_server", "xai", "perplexity", "gemini"])
def test_who_is_not_known_to_have_a_limit_is_sent_all_stop_sequences(make: Any, ask: Any, word: str) -> None:
    many = [f"s{number}" for number in range(40)]
    assert sent(make, word, ask("m", stop=many))["stop"] == many


def test_a_model_that_takes_no_stop_sequences_is_sent_none_however_many_they_are(make: Any, ask: Any) -> None:
    request = ask("o3", stop=["a", "b", "c", "d", "e"])
    assert sent(make, "openai", request) == {}
    assert warnings(make, "openai", request) == ["stop is not sent: o3 takes none while it reasons"]


# --- reasoning

BUDGET = {"google": {"thinking_config": {"thinking_budget": 2000}}}
THOUGHTS = {"google": {"thinking_config": {"include_thoughts": True}}}
REASONING: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    ("groq", {"reasoning_effort": "none"}, {"reasoning_effort": "none"}, []),
    ("groq", {"reasoning_effort": "medium"}, {"reasoning_effort": "medium"}, []),
    (
        "groq",
        {"reasoning_effort": "minimal"},
        {"reasoning_effort": "low"},
        ["reasoning_effort minimal is sent as low: groq has no such level"],
    ),
    (
        "groq",
        {"reasoning_effort": "max"},
        {"reasoning_effort": "high"},
        ["reasoning_effort max is sent as high: groq has no such level"],
    ),
    ("mistral", {"reasoning_effort": "xhigh"}, {"reasoning_effort": "xhigh"}, []),
    ("together", {"reasoning_effort": "none"}, {"reasoning": {"enabled": False}}, []),
    ("together", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}, []),
    (
        "together",
        {"reasoning_effort": "xhigh"},
        {"reasoning_effort": "high"},
        ["reasoning_effort xhigh is sent as high: together has no such level"],
    ),
    (
        "together",
        {"reasoning_budget": 2000},
        {},
        ["reasoning_budget is not sent: ask by reasoning_effort"],
    ),
    ("vllm", {"reasoning_budget": 2000}, {"thinking_token_budget": 2000}, []),
    (
        "vllm",
        {"reasoning_effort": "max", "reasoning_budget": 0},
        {"reasoning_effort": "max", "thinking_token_budget": 0},
        [],
    ),
    ("llama_server", {"reasoning_effort": "none"}, {"chat_template_kwargs": {"enable_thinking": False}}, []),
    ("llama_server", {"reasoning_effort": "high"}, {"chat_template_kwargs": {"reasoning_effort": "high"}}, []),
    ("llama_server", {"reasoning_budget": 2000}, {"thinking_budget_tokens": 2000}, []),
    ("perplexity", {"reasoning_effort": "minimal"}, {"reasoning_effort": "minimal"}, []),
    (
        "perplexity",
        {"reasoning_effort": "max"},
        {"reasoning_effort": "high"},
        ["reasoning_effort max is sent as high: perplexity has no such level"],
    ),
    ("xai", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}, []),
    ("gemini", {"reasoning_effort": "none"}, {"reasoning_effort": "none"}, []),
    ("gemini", {"reasoning_effort": "minimal"}, {"reasoning_effort": "minimal"}, []),
    (
        "gemini",
        {"reasoning_effort": "max"},
        {"reasoning_effort": "high"},
        ["reasoning_effort max is sent as high: gemini has no such level"],
    ),
    ("gemini", {"reasoning_budget": 2000}, {"extra_body": BUDGET}, []),
    ("gemini", {"reasoning_budget": 0}, {"extra_body": {"google": {"thinking_config": {"thinking_budget": 0}}}}, []),
    (
        "gemini",
        {"reasoning_budget": 2000, "reasoning_effort": "max"},
        {"extra_body": BUDGET},
        ["reasoning_effort is not sent: reasoning_budget is, and one excludes the other"],
    ),
    ("gemini", {"reasoning_summary": "auto"}, {"extra_body": THOUGHTS}, []),
    ("gemini", {"reasoning_summary": "none"}, {}, []),
    (
        "gemini",
        {"reasoning_effort": "low", "reasoning_summary": "detailed"},
        {"extra_body": THOUGHTS, "reasoning_effort": "low"},
        ["reasoning_summary detailed is sent as include_thoughts: it has one length"],
    ),
    ("openrouter", {"reasoning_effort": "xhigh"}, {"reasoning": {"effort": "xhigh"}}, []),
    (
        "openrouter",
        {"reasoning_effort": "low", "reasoning_summary": "concise"},
        {"reasoning": {"effort": "low", "summary": "concise"}},
        [],
    ),
    ("openrouter", {"reasoning_summary": "none"}, {}, []),
    ("deepseek", {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, []),
    (
        "deepseek",
        {"reasoning_effort": "minimal"},
        {"thinking": {"type": "enabled"}, "reasoning_effort": "minimal"},
        [],
    ),
]


@pytest.mark.parametrize(("word", "fields", "expected", "said"), REASONING)
def test_each_server_is_asked_to_reason_in_its_own_words(
    make: Any, ask: Any, word: str, fields: dict[str, Any], expected: dict[str, Any], said: list[str]
) -> None:
    request = ask("m", **fields)
    body = sent(make, word, request)
    body.pop("usage", None)  # OpenRouter is always asked for it
    assert body == expected
    assert warnings(make, word, request) == said


def test_what_is_asked_of_a_template_by_extra_stands_in_place_of_an_effort(make: Any, ask: Any) -> None:
    given = {"chat_template_kwargs": {"enable_thinking": True}}
    assert sent(make, "llama_server", ask("m", reasoning_effort="none", extra=given)) == given


@pytest.mark.parametrize(
    ("model", "effort", "thinks"),
    [
        ("deepseek-v4-pro", None, True),
        ("deepseek-reasoner", None, True),
        ("deepseek-chat", None, False),
        ("deepseek-chat", "high", True),
        ("deepseek-v4-pro", "none", False),
        ("deepseek-reasoner", "none", False),
    ],
)
def test_what_deepseek_does_not_heed_while_it_thinks_is_named(
    make: Any, ask: Any, model: str, effort: str | None, thinks: bool
) -> None:
    fields = {name: value for name, value in SAMPLING.items() if name in IDLE}
    request = ask(model, **fields, logprobs=True, reasoning_effort=effort)
    body = sent(make, "deepseek", request)
    assert {name: body[name] for name in IDLE} == fields  # whoever turns thinking off by `extra` still has them
    texts = warnings(make, "deepseek", request)
    assert {text.partition(" ")[0] for text in texts} == (IDLE if thinks else set())
    if thinks:
        assert f"temperature has no effect while {model} thinks, which reasoning_effort='none' turns off" in texts
    assert warnings(make, "deepseek", ask(model, reasoning_effort=effort)) == []


# --- spoken answers

IN_2100 = 4_102_444_800


@pytest.mark.parametrize("word", ["openai", "azure"])
def test_a_spoken_answer_goes_back_by_its_id_while_that_is_known(make: Any, ask: Any, word: str) -> None:
    spoken = {"id": "audio_1", "data": "AAAA", "transcript": "Quack", "expires_at": IN_2100}
    request = ask("gpt-audio", messages=[{"role": "assistant", "audio": spoken}])
    turn = made(make, word).encode(request)[2]["messages"][0]
    assert turn == {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}
    assert warnings(make, word, request) == []


@pytest.mark.parametrize("word", ["openai", "azure"])
@pytest.mark.parametrize(("text", "expected"), [(None, "Quack"), ("said in writing", "said in writing")])
def test_a_spoken_answer_whose_id_has_expired_goes_back_as_text(
    make: Any, ask: Any, word: str, text: str | None, expected: str
) -> None:
    spoken = {"id": "audio_1", "data": "AAAA", "transcript": "Quack", "expires_at": 1_700_000_000}
    request = ask("gpt-audio", messages=[{"role": "assistant", "content": text, "audio": spoken}])
    turn = made(make, word).encode(request)[2]["messages"][0]
    assert turn == {"role": "assistant", "content": expected}
    assert warnings(make, word, request) == ["messages.audio is sent as its transcript: its id has expired"]


@pytest.mark.parametrize("expires_at", [IN_2100, 1_700_000_000, None])
def test_who_did_not_speak_is_told_what_was_said(make: Any, ask: Any, expires_at: int | None) -> None:
    spoken = {"id": "audio_1", "data": "AAAA", "transcript": "Quack", "expires_at": expires_at}
    request = ask("m", messages=[{"role": "assistant", "audio": spoken}])
    assert made(make, "groq").encode(request)[2]["messages"][0] == {"role": "assistant", "content": "Quack"}
    assert warnings(make, "groq", request) == ["messages.audio is sent as its transcript: groq did not speak it"]


# --- vectors


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("groq", {"dimensions": 2, "user": "u", "encoding_format": "base64"}),
        ("mistral", {"output_dimension": 2}),
        ("openrouter", {"dimensions": 2, "user": "u", "encoding_format": "base64"}),
        ("together", {"dimensions": 2}),
        ("vllm", {"dimensions": 2, "user": "u", "encoding_format": "base64"}),
        ("llama_server", {"dimensions": 2}),
        ("gemini", {"dimensions": 2}),
    ],
)
def test_vectors_are_asked_for_with_the_fields_that_a_server_has(
    make: Any, word: str, expected: dict[str, Any]
) -> None:
    request = EmbeddingRequest.parse({"model": "m", "input": ["a"], "dimensions": 2, "user": "u"})
    body = made(make, word).encode_embedding(request)[2]
    assert body == {"model": "m", "input": ["a"]} | expected
    said = ["user is not sent: " + word + " has no such field"] if "user" not in expected else []
    assert list(made(make, word).embedding_warnings(request)) == said


@pytest.mark.parametrize("word", ["together", "llama_server", "ollama"])
@pytest.mark.parametrize(
    ("asked", "said"),
    [(2, []), (None, []), (3, ["dimensions is not heeded: the vectors have 2 numbers, not 3"])],
)
def test_vectors_of_another_length_than_was_asked_for_are_not_passed_over(
    make: Any, vendor: Any, run: Any, word: str, asked: int | None, said: list[str]
) -> None:
    """No server tells that it ignores the field, and a store of vectors would find out much later."""
    body = {"model": "m", "data": [{"index": 0, "embedding": [0.5, -1.0]}], "usage": {"prompt_tokens": 1}}
    body |= {"embeddings": [[0.5, -1.0]], "prompt_eval_count": 1}
    request = EmbeddingRequest.parse({"model": "m", "input": ["a"], "dimensions": asked})
    given = run(make(word, vendor(httpx.Response(200, json=body))).embed(request))
    assert (given.vectors, list(given.warnings)) == (((0.5, -1.0),), said)
