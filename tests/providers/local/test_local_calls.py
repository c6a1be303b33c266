"""A call that must be made: the schema that an answer is held to, and the call read out of it however it is split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.errors import InvalidRequest
from rubberduck.providers.local.calls import CallReader, StreamReader, held_to_a_call, must_call, with_call
from rubberduck.types import Choice, Chunk, Delta, FinishReason, Message, Request, Response, Usage

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"function": {"name": "weather", "parameters": CITY}}, {"function": {"name": "time"}}]
NAMED = {"type": "function", "function": {"name": "time"}}
ALLOWED = {"type": "allowed_tools", "mode": "required", "names": ["weather"]}


def ask(**fields: Any) -> Request:
    return Request.parse({"model": "m", "messages": [{"role": "user", "content": "Hi"}]} | fields)


def schema(**fields: Any) -> dict[str, Any]:
    held = held_to_a_call(ask(**fields))
    assert held.tool_choice == "none"
    assert held.response_format
    return held.response_format["json_schema"]["schema"]


@pytest.mark.parametrize(
    ("choice", "must"),
    [
        (None, False),
        ("none", False),
        ("auto", False),
        (ALLOWED | {"mode": "auto"}, False),
        ("required", True),
        (NAMED, True),
        (ALLOWED, True),
    ],
)
def test_when_a_call_must_be_made(choice: Any, must: bool) -> None:
    assert must_call(ask(tools=TOOLS, tool_choice=choice)) is must
    assert not must_call(ask(tool_choice=choice))


def test_the_schema_has_room_for_one_call_of_one_of_the_tools() -> None:
    said = schema(tools=TOOLS, tool_choice="required")
    assert [call["properties"]["name"] for call in said["anyOf"]] == [{"const": "weather"}, {"const": "time"}]
    assert [call["properties"]["arguments"]["$ref"] for call in said["anyOf"]] == ["#/$defs/tool0", "#/$defs/tool1"]
    assert said["$defs"] == {"tool0": CITY, "tool1": {"const": {}}}


@pytest.mark.parametrize(("choice", "name"), [(NAMED, "time"), (ALLOWED, "weather")])
def test_a_choice_leaves_the_other_tools_out(choice: Any, name: str) -> None:
    request = ask(tools=TOOLS, tool_choice=choice)
    assert schema(tools=TOOLS, tool_choice=choice)["properties"]["name"] == {"const": name}
    assert [tool.function.name for tool in held_to_a_call(request).tools] == [name]  # type: ignore[union-attr]


def test_references_stay_within_the_tools_own_parameters() -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}, "all": {"anyOf": [{"$ref": "#"}, {"$ref": "https://x/y"}]}},
        "$defs": {"A": {"type": "string"}},
    }
    said = schema(tools=[{"function": {"name": "f", "parameters": parameters}}], tool_choice="required")
    moved = said["$defs"]["tool0"]
    assert moved["properties"]["a"] == {"$ref": "#/$defs/tool0/$defs/A"}
    assert moved["properties"]["all"]["anyOf"] == [{"$ref": "#/$defs/tool0"}, {"$ref": "https://x/y"}]
    assert parameters["properties"]["a"] == {"$ref": "#/$defs/A"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}], "tool_choice": "required"}, "tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
    ],
)
def test_what_cannot_be_called_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        held_to_a_call(ask(**fields))
    assert refused.value.field == field


# --- reading


def read(*pieces: str) -> tuple[str | None, str]:
    reader = CallReader()
    fragments = [fragment for piece in pieces for fragment in reader.add(piece, "place")] + list(reader.end())
    assert len([fragment for fragment in fragments if fragment.id]) == (reader.name is not None)
    return reader.name, "".join(fragment.arguments for fragment in fragments)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\}{ \n\té🦆', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    arguments=st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    name=st.text(min_size=1, max_size=5),
    indent=st.sampled_from([None, 0, 2, "\t"]),
    tail=st.sampled_from(["", "\n", "  "]),
    data=st.data(),
)
def test_a_call_is_the_same_at_every_splitting(arguments: Any, name: str, indent: Any, tail: str, data: Any) -> None:
    text = json.dumps({"name": name, "arguments": arguments}, indent=indent) + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found, said = read(*pieces)
    assert (found, json.loads(said)) == (name, arguments)
    assert read(*text) == (found, said) == read(text)


def test_a_call_that_was_cut_gives_what_there_is_of_it() -> None:
    text = '{"name": "f", "arguments": {"a": {"b": 1}}}'
    for cut in range(len(text)):
        name, said = read(text[:cut])
        if name is None:
            assert said == ""
        else:
            assert '{"a": {"b": 1}}'.startswith(said)
    assert read(text[:-1]) == ("f", '{"a": {"b": 1}}')  # whole, though what is around it is not


def response(text: str, reason: FinishReason = FinishReason.STOP) -> Response:
    return Response("id", "m", (Choice(0, Message(role="assistant", content=text), reason, str(reason)),), Usage(1, 1))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [(FinishReason.STOP, FinishReason.TOOL_CALLS), (FinishReason.LENGTH, FinishReason.LENGTH)],
)
def test_a_whole_answer_becomes_the_call(reason: FinishReason, expected: FinishReason) -> None:
    choice = with_call(response('{"name": "f", "arguments": {"a": 1}}', reason)).choices[0]
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("f", '{"a": 1}')
    assert call.id.startswith("call_")
    assert (choice.message.content, choice.finish_reason, choice.raw_finish_reason) == (None, expected, str(reason))


@pytest.mark.parametrize("text", ["Hello", '{"na', ""])
def test_what_is_no_call_stays_text(text: str) -> None:
    whole = response(text, FinishReason.LENGTH)
    assert with_call(whole) == whole
    reader = StreamReader()
    chunks = [reader.read(Chunk(0, Delta(text))), reader.read(Chunk(0, Delta(), FinishReason.LENGTH))]
    assert "".join(chunk.delta.content for chunk in chunks) == text
    assert chunks[-1].finish_reason is FinishReason.LENGTH


def test_each_choice_of_a_stream_has_its_own_call() -> None:
    reader = StreamReader()
    texts = {0: '{"name": "f", "arguments": {}}', 1: '{"name": "g", "arguments": {"a": 1}}'}
    chunks = [
        Chunk(index, Delta(text[half]), id="x") for half in (slice(9), slice(9, None)) for index, text in texts.items()
    ]
    ends = [Chunk(index, Delta(), FinishReason.STOP, id="x") for index in texts]
    said: dict[int, list[Any]] = {0: [], 1: []}
    for chunk in [reader.read(chunk) for chunk in [*chunks, *ends]]:
        said[chunk.index] += chunk.delta.tool_calls
        assert not chunk.delta.content
        assert chunk.finish_reason in (None, FinishReason.TOOL_CALLS)
    names = [[call.name for call in calls if call.name] for calls in said.values()]
    assert names == [["f"], ["g"]]
    assert ["".join(call.arguments for call in calls) for calls in said.values()] == ["{}", '{"a": 1}']
    assert len({call.id for calls in said.values() for call in calls if call.id}) == 2


def test_usage_and_thoughts_pass_by() -> None:
    reader = StreamReader()
    for chunk in (Chunk(usage=Usage(1, 2)), Chunk(0, Delta(reasoning="hm"))):
        assert reader.read(chunk) is chunk
