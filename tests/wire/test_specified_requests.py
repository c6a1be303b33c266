"""The mapping of requests, row by row: what each provider is sent, what is named in a warning, what is refused."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from tests_every_field import (
    FIND,
    HI,
    LOOK,
    PDF,
    PNG,
    Fields,
    allowed,
    asking,
    called,
    calling,
    choosing,
    custom,
    file,
    image,
    named,
    result_of,
    said,
    schema,
    sound,
    text,
    tooled,
    user,
)

from rubberduck.config import ProviderConfig
from rubberduck.errors import InvalidRequest
from rubberduck.providers import resolve
from rubberduck.providers.http import HTTPProvider
from rubberduck.types import Request

COLUMNS = {
    "openai": ("openai", "gpt-4.1", {}),
    "responses": ("openai_responses", "gpt-4.1", {}),
    "claude-23": ("anthropic", "claude-sonnet-4-5", {"version": "2023-06-01"}),
    "claude-26": ("anthropic", "claude-opus-4-8", {"version": "2026-10-21"}),
    "ollama": ("ollama", "qwen3", {}),
}


@cache
def adapter(column: str) -> HTTPProvider:
    word, _, options = COLUMNS[column]
    return resolve(word).init(ProviderConfig(name=word, module=word, api_keys=("k",), **options))


def body(column: str, fields: Fields, model: str | None = None) -> Fields:
    """What is sent, as the server would read it."""
    request = Request.parse({"model": model or COLUMNS[column][1], **fields})
    sent: Fields = json.loads(json.dumps(adapter(column).encode(request)[2]))
    return sent


def warned(column: str, fields: Fields, model: str | None = None) -> list[str]:
    request = Request.parse({"model": model or COLUMNS[column][1], **fields})
    return [told.split()[0] for told in adapter(column).warnings(request)]


# --- what becomes of each field

URL = "https://a.example/b"
TWO = asking(HI, tools=[LOOK, FIND])
TOLD = said()
CALLED = calling(called())
WITH_PDF = asking(*user(file()))

ASKED: dict[str, tuple[Fields, Fields]] = {
    # label: the request with the field, and without it
    "temperature 0.5": (asking(HI, temperature=0.5), asking(HI)),
    "temperature 1.5": (asking(HI, temperature=1.5), asking(HI)),
    "top_p": (asking(HI, top_p=0.5), asking(HI)),
    "top_k": (asking(HI, top_k=5), asking(HI)),
    "max_tokens": (asking(HI, max_tokens=5), asking(HI)),
    "stop": (asking(HI, stop=["a"]), asking(HI)),
    "n": (asking(HI, n=2), asking(HI)),
    "seed": (asking(HI, seed=7), asking(HI)),
    "presence_penalty": (asking(HI, presence_penalty=0.5), asking(HI)),
    "frequency_penalty": (asking(HI, frequency_penalty=0.5), asking(HI)),
    "logit_bias": (asking(HI, logit_bias={"1": 1.0}), asking(HI)),
    "logprobs": (asking(HI, logprobs=True), asking(HI)),
    "verbosity": (asking(HI, verbosity="low"), asking(HI)),
    "metadata": (asking(HI, metadata={"a": "b"}), asking(HI)),
    "user": (asking(HI, user="u"), asking(HI)),
    "service_tier flex": (asking(HI, service_tier="flex"), asking(HI)),
    "prompt_cache_key": (asking(HI, prompt_cache_key="k"), asking(HI)),
    "cache_control": (asking(HI, cache_control={}), asking(HI)),
    "reasoning_effort": (asking(HI, reasoning_effort="high"), asking(HI)),
    "reasoning_budget": (asking(HI, reasoning_budget=2000), asking(HI)),
    "reasoning_summary": (asking(HI, reasoning_summary="auto"), asking(HI)),
    "response_format schema": (asking(HI, response_format=schema("string")), asking(HI)),
    "response_format json": (asking(HI, response_format={"type": "json_object"}), asking(HI)),
    "tools": (TWO, asking(HI)),
    "tools custom": (custom(), asking(HI)),
    "tools.function.strict": (tooled({"strict": True}), tooled()),
    "tools.cache_control": (tooled(cache_control={}), tooled()),
    "tool_choice none": (choosing("none"), TWO),
    "tool_choice required": (choosing("required"), TWO),
    "tool_choice named": (choosing(named("look")), TWO),
    "tool_choice allowed": (choosing(allowed("look")), TWO),
    "tool_choice without": (asking(HI, tool_choice="required"), asking(HI)),
    "parallel_tool_calls": (asking(HI, tools=[LOOK], parallel_tool_calls=False), asking(HI, tools=[LOOK])),
    "messages.name": (asking(HI | {"name": "Ann"}), asking(HI)),
    "messages.is_error": (asking(*calling(called(), result={"is_error": True})), asking(*CALLED)),
    "messages.refusal": (asking(*said(content=None, refusal="No.")), asking(*TOLD)),
    "messages.audio": (asking(*said(content=None, audio={"id": "a", "transcript": "Q."})), asking(*TOLD)),
    "messages.content image": (asking(*user(image())), asking(HI)),
    "messages.content.image_url url": (asking(*user(image(URL))), asking(HI)),
    "messages.content.image_url.detail": (asking(*user(image(detail="high"))), asking(*user(image()))),
    "messages.content audio": (asking(*user(sound())), asking(HI)),
    "messages.content pdf": (WITH_PDF, asking(HI)),
    "messages.content.file.file_url": (asking(*user(file({"file_url": URL}))), asking(HI)),
    "messages.content.title": (asking(*user(file(title="T"))), WITH_PDF),
    "messages.content.citations": (asking(*user(file(citations=True))), WITH_PDF),
    "messages.content.cache_control": (asking(*user(text(cache_control={}))), asking(*user(text()))),
    "messages.content in a result": (asking(*result_of(image())), asking(*result_of(text()))),
}

MAPPING = """
                                    openai   responses  claude-23  claude-26  ollama
  temperature 0.5                   sent     sent       sent       named      sent
  temperature 1.5                   sent     sent       named      named      sent
  top_p                             sent     sent       sent       named      sent
  top_k                             named    named      sent       named      sent
  max_tokens                        sent     sent       sent       sent       sent
  stop                              sent     named      sent       sent       sent
  n                                 sent     refused    refused    refused    refused
  seed                              sent     named      named      named      sent
  presence_penalty                  sent     named      named      named      sent
  frequency_penalty                 sent     named      named      named      sent
  logit_bias                        sent     named      named      named      named
  logprobs                          sent     sent       named      named      sent
  verbosity                         sent     sent       named      named      named
  metadata                          sent     sent       named      named      named
  user                              sent     sent       sent       sent       named
  service_tier flex                 sent     sent       named      named      named
  prompt_cache_key                  sent     sent       named      named      named
  cache_control                     named    named      sent       sent       named
  reasoning_effort                  sent     sent       named      sent       sent
  reasoning_budget                  named    named      sent       named      named
  reasoning_summary                 named    sent       named      sent       named
  response_format schema            sent     sent       sent       sent       sent
  response_format json              sent     sent       refused    refused    sent
  tools                             sent     sent       sent       sent       sent
  tools custom                      sent     sent       refused    refused    refused
  tools.function.strict             sent     sent       sent       sent       named
  tools.cache_control               named    named      sent       sent       named
  tool_choice none                  sent     sent       sent       sent       sent
  tool_choice required              sent     sent       sent       sent       named
  tool_choice named                 sent     sent       sent       sent       named
  tool_choice allowed               sent     sent       sent       sent       sent
  tool_choice without               refused  refused    refused    refused    refused
  parallel_tool_calls               sent     sent       sent       sent       named
  messages.name                     sent     named      named      named      named
  messages.is_error                 named    named      sent       sent       named
  messages.refusal                  sent     sent       sent       sent       sent
  messages.audio                    sent     named      named      named      named
  messages.content image            sent     sent       sent       sent       sent
  messages.content.image_url url    sent     sent       sent       sent       refused
  messages.content.image_url.detail sent     sent       named      named      named
  messages.content audio            sent     refused    refused    refused    refused
  messages.content pdf              sent     sent       sent       sent       refused
  messages.content.file.file_url    refused  sent       sent       sent       refused
  messages.content.title            named    named      sent       sent       refused
  messages.content.citations        named    named      sent       sent       refused
  messages.content.cache_control    named    named      sent       sent       named
  messages.content in a result      sent     sent       sent       sent       sent
"""


def becomes(column: str, label: str) -> str:
    asked, plain = ASKED[label]
    path = label.split()[0]
    try:
        sent = body(column, asked)
    except InvalidRequest as error:
        place = error.field or "nobody knows what"
        return "refused" if path.startswith(place) or place.startswith(path) else f"refused for {place}"
    if any(told == path for told in warned(column, asked)):
        return "named"
    assert sent != body(column, plain)
    return "sent"


def written(row: str) -> tuple[str, dict[str, str]]:
    label, cells = row[2:36].strip(), row[36:].split()
    return label, dict(zip(COLUMNS, cells, strict=True))


HEAD, *ROWS = MAPPING.strip("\n").split("\n")


def test_the_table_has_a_row_for_each_case() -> None:
    assert HEAD.split() == list(COLUMNS)
    assert [written(row)[0] for row in ROWS] == list(ASKED)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: written(row)[0].replace(" ", "-"))
def test_each_cell_of_the_mapping(row: str) -> None:
    label, expected = written(row)
    assert {column: becomes(column, label) for column in COLUMNS} == expected


# --- parameters of one provider go through `extra` as they are

OWN: dict[str, Fields] = {
    "openai": {
        "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "mp3"}, "store": True,
        "prediction": {"type": "content", "content": "Hi"}, "safety_identifier": "s", "moderation": {"model": "m"},
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"}, "web_search_options": {}, "function_call": "auto",
    },
    "responses": {
        "instructions": "Be brief.", "previous_response_id": "resp_1", "conversation": "conv_1",
        "truncation": "auto", "prompt_cache_options": {"ttl": "30m"}, "max_tool_calls": 3,
    },
    "claude-23": {
        "thinking": {"type": "between_tools"}, "speed": "fast", "container": "c", "inference_geo": "eu",
        "diagnostics": {}, "max_tokens": 0,
    },
    "ollama": {"keep_alive": "5m", "truncate": True, "shift": False, "format": "json", "think": "medium"},
}  # fmt: skip


@pytest.mark.parametrize("column", OWN)
def test_what_one_provider_alone_knows_goes_through_extra(column: str) -> None:
    word = COLUMNS[column][0]
    for extra in (OWN[column], {word: OWN[column]}):
        assert body(column, asking(HI, extra=extra)).items() >= OWN[column].items()
    assert body(column, asking(HI, extra={"mistral": {"safe_prompt": True}})) == body(column, asking(HI))


def test_options_of_a_model_of_ollamas_go_beside_its_others() -> None:
    extra = {"min_p": 0.1, "repeat_penalty": 1.1, "num_ctx": 4096}
    assert body("ollama", asking(HI, seed=7, extra=extra))["options"] == {"seed": 7, **extra}


def test_what_a_stream_tells_beside_is_added_to_what_is_asked_for() -> None:
    fields = asking(HI, stream=True, extra={"stream_options": {"include_obfuscation": False}})
    assert body("openai", fields)["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_beta_features_stand_in_one_header() -> None:
    fields = asking(*user(file({"file_id": "file_1"})), extra={"anthropic": {"betas": ["one", "two"]}})
    _, headers, sent = adapter("claude-23").encode(Request.parse({"model": "claude-opus-4-6", **fields}))
    assert headers["anthropic-beta"] == "one,two,files-api-2025-04-14"
    assert "betas" not in sent


# --- what Anthropic's models take

MODELS = """
                     sampling  system turns  prefill  budget  forcing
  claude-haiku-3-5   yes       no            yes      yes     yes
  claude-sonnet-4-5  yes       no            yes      yes     yes
  claude-opus-4-6    yes       no            no       yes     yes
  claude-opus-4-7    no        no            no       no      yes
  claude-opus-4-8    no        yes           no       no      yes
  claude-opus-5      no        yes           no       no      yes
  claude-sonnet-5    no        yes           no       no      yes
  claude-fable-5     no        yes           no       no      no
  claude-mythos-5    no        yes           no       no      no
"""


def is_refused(model: str, fields: Fields) -> bool:
    try:
        body("claude-23", fields, model)
    except InvalidRequest:
        return True
    return False


def taken(model: str) -> list[bool]:
    turns = body("claude-23", asking(HI, {"role": "system", "content": "S"}, HI), model)["messages"]
    thinking = body("claude-23", asking(HI, reasoning_budget=2000), model).get("thinking", {})
    return [
        "temperature" in body("claude-23", asking(HI, temperature=0.5), model),
        [turn["role"] for turn in turns] == ["user", "system", "user"],
        not is_refused(model, asking(HI, {"role": "assistant", "content": "Well,"})),
        thinking == {"type": "enabled", "budget_tokens": 2000},
        not is_refused(model, choosing("required")),
    ]


@pytest.mark.parametrize("row", MODELS.strip("\n").split("\n")[1:])
def test_each_model_of_anthropics_is_sent_what_it_takes(row: str) -> None:
    model, *cells = row.split()
    assert taken(model) == [cell == "yes" for cell in cells]
    assert ("temperature" in warned("claude-23", asking(HI, temperature=0.5), model)) is (cells[0] == "no")


def test_the_later_version_takes_sampling_of_no_model() -> None:
    fields = asking(HI, temperature=0.5, top_p=0.5, top_k=5)
    for model in ("claude-haiku-3-5", "claude-opus-5", "another"):
        assert not body("claude-26", fields, model).keys() & {"temperature", "top_p", "top_k"}
        assert warned("claude-26", fields, model) == ["temperature", "top_p", "top_k"]


# --- turns

WHITE: list[Fields] = [HI, {"role": "assistant", "content": " \n"}, {"role": "user", "content": ""}, HI]


def test_turns_that_say_nothing_are_left_out_for_anthropic_and_empty_elsewhere() -> None:
    assert [turn["content"] for turn in body("openai", asking(*WHITE))["messages"]] == ["Hi", " \n", "", "Hi"]
    assert [turn["content"] for turn in body("ollama", asking(*WHITE))["messages"]] == ["Hi", " \n", "", "Hi"]
    (turn,) = body("claude-23", asking(*WHITE))["messages"]
    assert turn == {"role": "user", "content": [{"type": "text", "text": "Hi"}] * 2}


def test_content_is_null_only_beside_calls() -> None:
    _, silent, _ = body("openai", asking(*said(content=None)))["messages"]
    assert silent == {"role": "assistant", "content": ""}
    assert body("openai", asking(*CALLED))["messages"][1]["content"] is None


def test_the_tools_of_old_have_their_turns() -> None:
    old = [
        HI,
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "r"},
    ]
    assert body("openai", asking(*old))["messages"] == old
    _, call, result = body("ollama", asking(*old))["messages"]
    assert call["tool_calls"] == [{"function": {"name": "look", "arguments": {}}}]
    assert result == {"role": "tool", "content": "r", "tool_name": "look"}


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        (named("look"), None, {"type": "tool", "name": "look"}),
        ("none", None, {"type": "none"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (named("look"), False, {"type": "tool", "name": "look", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
    ],
)
def test_one_call_at_a_time_stands_in_anthropics_choice(choice: Any, parallel: bool | None, expected: Fields) -> None:
    fields = asking(HI, tools=[LOOK], tool_choice=choice, parallel_tool_calls=parallel)
    assert body("claude-23", fields)["tool_choice"] == expected


def test_a_picture_by_name_is_an_image_for_anthropic_and_says_nothing_beside() -> None:
    by_name = file({"file_id": "file_1", "filename": "a.png"}, title="T", context="C", citations=True)
    (turn,) = body("claude-23", asking(*user(by_name)))["messages"]
    assert turn["content"] == [{"type": "image", "source": {"type": "file", "file_id": "file_1"}}]
    assert warned("claude-23", asking(*user(by_name))) == [
        "messages.content.title", "messages.content.context", "messages.content.citations",
        "messages.content.file.filename",
    ]  # fmt: skip
    carried = file({"file_data": PNG, "filename": "a.png"})
    assert warned("claude-23", asking(*user(carried))) == ["messages.content.file.filename"]
    assert warned("claude-23", asking(*user(file({"file_data": PDF, "filename": "a.pdf"})))) == []


def test_words_and_a_refusal_both_go_back() -> None:
    both = asking(*said(content="Well.", refusal="No."))
    assert body("openai", both)["messages"][1] == {"role": "assistant", "content": "Well.", "refusal": "No."}
    assert [block["text"] for block in body("claude-23", both)["messages"][1]["content"]] == ["Well.", "No."]
    assert body("ollama", both)["messages"][1]["content"] == "Well.\n\nNo."


def test_a_mark_behind_the_text_of_a_result_reaches_who_knows_marks() -> None:
    marked = asking(*result_of(text(cache_control={"ttl": "1h"})))
    ends = {"mode": "explicit", "ttl": "12h"}
    (part,) = body("openai", marked, "gpt-5.6")["messages"][2]["content"]
    assert part == {"type": "text", "text": "Long.", "prompt_cache_breakpoint": ends}
    (part,) = body("responses", marked, "gpt-5.6")["input"][2]["output"]
    assert part == {"type": "input_text", "text": "Long.", "prompt_cache_breakpoint": ends}
    for column in ("openai", "responses"):
        assert warned(column, marked, "gpt-5.6") == ["messages.content.cache_control.ttl"]


def test_a_temperature_of_nothing_is_a_temperature() -> None:
    """It was taken for one that is not set, for 0 and False are equal."""
    assert warned("responses", asking(HI, temperature=0), "gpt-5") == ["temperature"]


@pytest.mark.parametrize(
    ("model", "is_sent"),
    [
        ("gpt-4.1", True),
        ("gpt-5", True),
        ("o3-mini", True),
        ("o3", False),
        ("o3-2025-04-16", False),
        ("o4-mini", False),
    ],
)
def test_models_without_stop_texts_are_sent_none(model: str, is_sent: bool) -> None:
    fields = asking(HI, stop=["END"])
    assert ("stop" in body("openai", fields, model)) is is_sent
    assert warned("openai", fields, model) == ([] if is_sent else ["stop"])
    assert warned("openai", asking(HI), model) == []


def test_a_forced_call_names_each_wish_for_thoughts_that_it_drops() -> None:
    forced = {"tools": [LOOK], "tool_choice": "required"}
    summary = asking(HI, reasoning_summary="auto", **forced)
    assert "thinking" not in body("claude-26", summary)
    assert warned("claude-26", summary) == ["reasoning_summary"]
    both = asking(HI, reasoning_summary="auto", reasoning_effort="high", **forced)
    assert warned("claude-26", both) == ["reasoning_effort", "reasoning_summary"]


def test_a_choice_among_tools_of_extra_is_made_too() -> None:
    extra = {"tools": [{"type": "function", "function": {"name": "find", "parameters": {}}}]}
    assert body("openai", asking(HI, tool_choice="required", extra=extra))["tool_choice"] == "required"
    assert body("openai", asking(HI, tool_choice=named("find"), extra=extra))["tool_choice"] == named("find")
    assert warned("ollama", asking(HI, tool_choice="required", extra=extra)) == ["tool_choice"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_choice_of_a_tool_that_is_not_there_is_refused(column: str) -> None:
    for choice in (named("other"), allowed("look", "other"), allowed("other", mode="required")):
        with pytest.raises(InvalidRequest, match="other") as caught:
            body(column, choosing(choice))
        assert caught.value.field == "tool_choice"
