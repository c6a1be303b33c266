"""Callers' own objects, whatever is in them: each call is refused by itself, and nothing of it stays behind."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from tests_system_rig import REQUEST, StartDuck

from rubberduck import Request
from rubberduck.actors.calls.continuation import is_plain
from rubberduck.errors import InvalidRequest
from rubberduck.providers.http import merge_extra
from rubberduck.types import EmbeddingRequest

TOO_LONG_TO_WRITE = 10**5000
TOO_DEEP: dict[str, Any] = {}
_inside = TOO_DEEP
for _ in range(3000):
    _inside["a"] = {}
    _inside = _inside["a"]


class Hostile:
    """Fails whatever is done with it."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


class DescribesItselfBadly(BaseModel):
    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
        raise ZeroDivisionError("no schema")


class WithAnObjectInItsSchema(BaseModel):
    model_config = ConfigDict(json_schema_extra={"properties": 7, "type": ["object", 5]})


def assert_unharmed(duck: Any) -> None:
    assert duck.complete(REQUEST).text == "hello there"
    assert duck.actor("service").name.restarts == 0


OPTIONS = ("priority", "timeout", "providers", "tenant", "tags", "session", "replayable", "max_cost", "stream_policy",
           "response_model", "repair")  # fmt: skip


@pytest.mark.parametrize("value", [TOO_LONG_TO_WRITE, TOO_DEEP, Hostile()], ids=["long", "deep", "hostile"])
def test_an_option_that_cannot_even_be_written_is_refused_without_a_restart(start_duck: StartDuck, value: Any) -> None:
    duck = start_duck()
    for option in OPTIONS:
        with pytest.raises(InvalidRequest) as caught:
            duck.complete(REQUEST, **{option: value})
        assert len(str(caught.value)) < 1000
    with pytest.raises(InvalidRequest, match="stream_policy"):
        duck.complete(REQUEST, stream_policy={"buffer": TOO_DEEP})
    assert_unharmed(duck)


@pytest.mark.parametrize(
    "kind", [DescribesItselfBadly, WithAnObjectInItsSchema, {"type": "object"}], ids=["raises", "nonsense", "a dict"]
)
def test_a_type_whose_schema_cannot_be_made_is_the_callers_fault(start_duck: StartDuck, kind: Any) -> None:
    duck = start_duck()
    with pytest.raises(InvalidRequest, match="JSON has no schema"):
        duck.complete(REQUEST, response_model=kind)
    assert_unharmed(duck)


@pytest.mark.parametrize(
    "value", [math.inf, -math.inf, math.nan, -1, "x", 10**400], ids=["inf", "-inf", "nan", "-1", "x", "huge"]
)
def test_a_request_changed_behind_its_checks_is_checked_again(start_duck: StartDuck, value: Any) -> None:
    # An infinite `max_tokens` made the queue's clock infinite: no call of anybody was ever given a turn again.
    duck = start_duck()
    changed = Request.parse(REQUEST).model_copy(update={"max_tokens": value})
    with pytest.raises(InvalidRequest) as caught:
        duck.complete(changed, timeout=30)
    assert caught.value.field == "max_tokens"
    with pytest.raises(InvalidRequest):
        duck.count_tokens(changed)
    assert_unharmed(duck)


def test_what_was_made_without_any_check_is_refused_without_a_restart(start_duck: StartDuck) -> None:
    duck = start_duck()
    for made in (Request.model_construct(), Request.model_construct(model="any", messages=(5,))):
        with pytest.raises(InvalidRequest):
            duck.complete(made)
    with pytest.raises(InvalidRequest):
        duck.embed(EmbeddingRequest.model_construct(model="any", input=5))
    assert_unharmed(duck)


HALF = "\ud800"


@pytest.mark.parametrize(
    "field",
    [
        {"user": HALF},
        {"metadata": {HALF: HALF}},
        {"extra": {"a": HALF}},
        {"messages": [{"role": "user", "content": HALF}]},
    ],
    ids=["user", "metadata", "extra", "content"],
)
def test_a_job_that_cannot_be_kept_is_refused_without_a_restart(start_duck: StartDuck, field: Any) -> None:
    duck = start_duck(jobs={})
    with pytest.raises(InvalidRequest, match="kept as a job"):
        duck.submit({**REQUEST, **field})
    assert_unharmed(duck)


@pytest.mark.parametrize("field", ["model", "messages", "input", "stream"])
def test_what_is_asked_is_not_replaced_by_a_parameter(field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        merge_extra({"model": "m", "input": ["what was asked, counted and paid for"]}, {field: "other"})
    assert caught.value.field == f"extra.{field}"


def test_a_number_that_json_has_not_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"logit_bias\.a"):
        Request.parse({**REQUEST, "logit_bias": {"a": math.nan}})


PARTS: dict[str, Any] = {
    **REQUEST,
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}, "citations": True},
        ]},
        {"role": "assistant", "content": "f it is", "annotations": [{"type": "x", "raw": {"a": {"b": [1, None]}}}],
         "native": {"format": "anthropic", "model": "any", "items": [{"type": "thinking", "signature": "s"}]},
         "tool_calls": [{"id": "1", "type": "custom", "function": {"name": "f", "arguments": "free"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "failed", "is_error": True},
    ],
    "tools": [{"type": "custom", "custom": {"name": "f", "format": {"type": "text"}}}, {"function": {"name": "g"}}],
    "tool_choice": {"type": "allowed_tools", "names": ["f"]},
    "logit_bias": {"5": -100},
    "extra": {"mock": {"nothing": None, "false": False}},
}  # fmt: skip


def test_a_job_is_asked_word_for_word_what_was_submitted(start_duck: StartDuck) -> None:
    # Kept without their defaults, parts lost the `type` by which they are told apart: such a job could not be read.
    duck = start_duck(jobs={})
    assert duck.result(duck.submit(PARTS), timeout=30).text == "hello there"
    (asked,) = [call.request for call in duck.provider("mock").calls]
    assert asked.model_copy(update={"model": "any"}) == Request.parse(PARTS)


@pytest.mark.parametrize(
    "field",
    [{"logprobs": True}, {"reasoning_budget": 2000}, {"extra": {"anthropic": {"thinking": {"type": "enabled"}}}},
     {"extra": {"openai": {"tools": [{"type": "function"}]}}}],
    ids=["logprobs", "budget", "thinking", "tools"],
)  # fmt: skip
def test_an_answer_that_is_more_than_text_is_not_continued_elsewhere(field: Any) -> None:
    assert is_plain(Request.parse({**REQUEST, "extra": {"anthropic": {"inference_geo": "eu"}}}))
    assert not is_plain(Request.parse({**REQUEST, **field}))
