"""One intent a row: how it is asked of us, and how a user of each official SDK asks the same of that vendor.

What a vendor cannot be told is written where it would stand: `Refused` names the field of our error, `Told` adds the
fields that our warnings name. `ALWAYS` is what a user of an SDK writes into each call for what we do unasked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import openai

Kwargs = dict[str, Any]
MODELS = {"openai": "gpt-4.1", "responses": "gpt-5.1", "anthropic": "claude-opus-4-6", "ollama": "qwen3"}


@dataclass(frozen=True)
class Refused:
    """We raise InvalidRequest, with this field."""

    field: str


@dataclass(frozen=True)
class Told:
    """What is sent, while the answer's warnings name these fields."""

    kwargs: Kwargs
    warnings: tuple[str, ...]

    def __init__(self, kwargs: Kwargs, *warnings: str) -> None:
        object.__setattr__(self, "kwargs", kwargs)
        object.__setattr__(self, "warnings", warnings)


Native = Kwargs | Told | Refused | None
"""None where there is nothing to compare."""


@dataclass(frozen=True)
class Intent:
    """`ours` without the model, which is the vendor's in `MODELS`, or the one in `models`.

    `anthropic_2023` is for version 2023-06-01, where it differs from the later one.
    """

    name: str
    ours: Kwargs
    openai: Native = None
    responses: Native = None
    anthropic: Native = None
    ollama: Native = None
    anthropic_2023: Native = None
    models: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name.replace(" ", "-")


ALWAYS: dict[str, Kwargs] = {
    "openai": {},
    "responses": {"store": False, "include": ["reasoning.encrypted_content"]},  # no state kept; thoughts can go back
    "anthropic": {"max_tokens": 1024},  # a limit is required
    "ollama": {"options": {"num_ctx": 8192}},  # a context that conversations fit into
}


def claude(**kwargs: Any) -> Kwargs:
    return kwargs


HI = {"role": "user", "content": "Hi"}
BYE = {"role": "user", "content": "Bye"}
HELLO = {"role": "assistant", "content": "Hello."}
BRIEF = {"role": "system", "content": "Be brief."}
KIND = {"role": "system", "content": "Be kind."}
ASK = {"messages": [HI]}
INPUT = {"input": [HI]}

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PIXEL_URL = f"data:image/png;base64,{PIXEL}"
CAT_URL = "https://example.com/cat.png"
PDF = "JVBERi0xLjQK"
PDF_URL = f"data:application/pdf;base64,{PDF}"
WAV = "UklGRiQAAABXQVZF"

PLACE = {
    "type": "object",
    "properties": {"place": {"type": "string", "description": "A town."}},
    "required": ["place"],
}
ABOUT = "The weather now."
WEATHER = {"type": "function", "function": {"name": "weather", "description": ABOUT, "parameters": PLACE}}
WEATHER_FLAT = {"type": "function", "name": "weather", "description": ABOUT, "parameters": PLACE, "strict": False}
WEATHER_CLAUDE = {"name": "weather", "description": ABOUT, "input_schema": PLACE}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CLOCK_FLAT = {
    "type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}, "strict": False,
}  # fmt: skip
CLOCK_CLAUDE = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}
TOOLS = ASK | {"tools": [WEATHER]}
TOOLS_FLAT = INPUT | {"tools": [WEATHER_FLAT]}
TOOLS_CLAUDE = claude(messages=[HI], tools=[WEATHER_CLAUDE])
TWO = ASK | {"tools": [WEATHER, CLOCK]}
TWO_FLAT = INPUT | {"tools": [WEATHER_FLAT, CLOCK_FLAT]}
TWO_CLAUDE = claude(messages=[HI], tools=[WEATHER_CLAUDE, CLOCK_CLAUDE])

SCHEMA = {
    "type": "object",
    "properties": {"town": {"type": "string"}},
    "required": ["town"],
    "additionalProperties": False,
}


def call(call_id: str, place: str) -> Kwargs:
    arguments = f'{{"place": "{place}"}}'
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def called(call_id: str, place: str) -> Kwargs:
    return {
        "type": "function_call", "call_id": call_id, "name": "weather", "arguments": f'{{"place": "{place}"}}',
    }  # fmt: skip


def used(call_id: str, place: str) -> Kwargs:
    return {"type": "tool_use", "id": call_id, "name": "weather", "input": {"place": place}}


def ollama_call(place: str) -> Kwargs:
    return {"function": {"name": "weather", "arguments": {"place": place}}}


def text(words: str, **more: Any) -> Kwargs:
    return {"type": "text", "text": words} | more


def user(*parts: Kwargs) -> Kwargs:
    return {"role": "user", "content": list(parts)}


def image(url: str, detail: str | None = None) -> Kwargs:
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


def image_in(url: str, detail: str = "auto") -> Kwargs:
    return {"type": "input_image", "image_url": url, "detail": detail}


def input_text(words: str) -> Kwargs:
    return {"type": "input_text", "text": words}


PIXEL_CLAUDE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
CAT_CLAUDE = {"type": "image", "source": {"type": "url", "url": CAT_URL}}

CONVERSATION = [
    Intent("a question", ASK, ASK, INPUT, ASK, ASK),
    Intent(
        "several turns",
        {"messages": [HI, HELLO, BYE]},
        {"messages": [HI, HELLO, BYE]},
        {"input": [HI, HELLO, BYE]},
        claude(messages=[HI, HELLO, BYE]),
        {"messages": [HI, HELLO, BYE]},
    ),
    Intent(
        "a system text at the start",
        {"messages": [BRIEF, HI]},
        {"messages": [BRIEF, HI]},
        {"input": [BRIEF, HI]},
        claude(system="Be brief.", messages=[HI]),
        {"messages": [BRIEF, HI]},
    ),
    Intent(
        "a system text of the request",
        {"system": "Be brief.", "messages": [HI]},
        {"messages": [BRIEF, HI]},
        {"input": [BRIEF, HI]},
        claude(system="Be brief.", messages=[HI]),
        {"messages": [BRIEF, HI]},
    ),
    Intent(
        "several system texts at the start",
        {"messages": [BRIEF, KIND, HI]},
        {"messages": [BRIEF, KIND, HI]},
        {"input": [BRIEF, KIND, HI]},
        claude(system="Be brief.\n\nBe kind.", messages=[HI]),
        {"messages": [BRIEF, KIND, HI]},
    ),
    Intent(
        "a developer's text",
        {"messages": [BRIEF | {"role": "developer"}, HI]},
        {"messages": [BRIEF | {"role": "developer"}, HI]},
        {"input": [BRIEF | {"role": "developer"}, HI]},
        claude(system="Be brief.", messages=[HI]),
        {"messages": [BRIEF, HI]},
    ),
    Intent(
        "a system text in the middle",
        {"messages": [HI, HELLO, BYE, BRIEF]},
        {"messages": [HI, HELLO, BYE, BRIEF]},
        {"input": [HI, HELLO, BYE, BRIEF]},
        claude(messages=[HI, HELLO, BYE, BRIEF]),
        {"messages": [HI, HELLO, BYE, BRIEF]},
        models={"anthropic": "claude-opus-4-8"},
    ),
    Intent(
        "a system text in the middle for a model that takes none there",
        {"messages": [HI, HELLO, BYE, BRIEF]},
        anthropic=claude(messages=[HI, HELLO, user(text("Bye"), text("<system>Be brief.</system>"))]),
        models={"anthropic": "claude-sonnet-4-5"},
    ),
    Intent(
        "two turns of one side",
        {"messages": [HI, BYE]},
        {"messages": [HI, BYE]},
        {"input": [HI, BYE]},
        claude(messages=[user(text("Hi"), text("Bye"))]),
        {"messages": [HI, BYE]},
    ),
    Intent(
        "an empty answer in the history",
        {"messages": [HI, {"role": "assistant", "content": ""}, BYE]},
        {"messages": [HI, {"role": "assistant", "content": ""}, BYE]},
        {"input": [HI, {"role": "assistant", "content": ""}, BYE]},
        claude(messages=[user(text("Hi"), text("Bye"))]),
        {"messages": [HI, {"role": "assistant", "content": ""}, BYE]},
    ),
    Intent(
        "texts in parts",
        {"messages": [user(text("Hi"), text("there"))]},
        {"messages": [user(text("Hi"), text("there"))]},
        {"input": [user(input_text("Hi"), input_text("there"))]},
        claude(messages=[user(text("Hi"), text("there"))]),
        {"messages": [HI | {"content": "Hithere"}]},
    ),
    Intent(
        "who speaks, by name",
        {"messages": [HI | {"name": "Ann"}]},
        {"messages": [HI | {"name": "Ann"}]},
        Told(INPUT, "messages.name"),
        Told(ASK, "messages.name"),
        Told(ASK, "messages.name"),
    ),
    Intent(
        "an answer begun",
        {"messages": [HI, {"role": "assistant", "content": "Well,"}]},
        {"messages": [HI, {"role": "assistant", "content": "Well,"}]},
        {"input": [HI, {"role": "assistant", "content": "Well,"}]},
        claude(messages=[HI, {"role": "assistant", "content": "Well,"}]),
        {"messages": [HI, {"role": "assistant", "content": "Well,"}]},
        models={"anthropic": "claude-sonnet-4-5"},
    ),
    Intent(
        "a refusal in the history",
        {"messages": [HI, {"role": "assistant", "content": None, "refusal": "No."}, BYE]},
        {"messages": [HI, {"role": "assistant", "content": None, "refusal": "No."}, BYE]},
        {"input": [HI, {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, BYE]},
        claude(messages=[HI, {"role": "assistant", "content": "No."}, BYE]),
        {"messages": [HI, {"role": "assistant", "content": "No."}, BYE]},
    ),
]

SAMPLING = [
    Intent(
        "a limit",
        ASK | {"max_tokens": 50},
        ASK | {"max_completion_tokens": 50},
        INPUT | {"max_output_tokens": 50},
        claude(messages=[HI], max_tokens=50),
        ASK | {"options": {"num_predict": 50}},
    ),
    Intent(
        "temperature and top_p",
        ASK | {"temperature": 0.5, "top_p": 0.9},
        ASK | {"temperature": 0.5, "top_p": 0.9},
        INPUT | {"temperature": 0.5, "top_p": 0.9, "include": openai.omit},
        Told(claude(messages=[HI]), "temperature", "top_p"),
        ASK | {"options": {"temperature": 0.5, "top_p": 0.9}},
        anthropic_2023=claude(messages=[HI], extra_body={"temperature": 0.5, "top_p": 0.9}),
        models={"responses": "gpt-4.1"},
    ),
    Intent(
        "a temperature beyond the vendor's",
        ASK | {"temperature": 1.5},
        ASK | {"temperature": 1.5},
        INPUT | {"temperature": 1.5, "include": openai.omit},
        Told(claude(messages=[HI]), "temperature"),
        ASK | {"options": {"temperature": 1.5}},
        anthropic_2023=Told(claude(messages=[HI], extra_body={"temperature": 1.0}), "temperature"),
        models={"responses": "gpt-4.1"},
    ),
    Intent(
        "top_k",
        ASK | {"top_k": 40},
        Told(ASK, "top_k"),
        Told(INPUT, "top_k"),
        Told(claude(messages=[HI]), "top_k"),
        ASK | {"options": {"top_k": 40}},
        anthropic_2023=claude(messages=[HI], extra_body={"top_k": 40}),
    ),
    Intent(
        "stop texts",
        ASK | {"stop": ["END", "STOP"]},
        ASK | {"stop": ["END", "STOP"]},
        Told(INPUT, "stop"),
        claude(messages=[HI], stop_sequences=["END", "STOP"]),
        ASK | {"options": {"stop": ["END", "STOP"]}},
    ),
    Intent(
        "a seed",
        ASK | {"seed": 7},
        ASK | {"seed": 7},
        Told(INPUT, "seed"),
        Told(claude(messages=[HI]), "seed"),
        ASK | {"options": {"seed": 7}},
    ),
    Intent(
        "penalties",
        ASK | {"presence_penalty": 0.5, "frequency_penalty": -0.5},
        ASK | {"presence_penalty": 0.5, "frequency_penalty": -0.5},
        Told(INPUT, "presence_penalty", "frequency_penalty"),
        Told(claude(messages=[HI]), "presence_penalty", "frequency_penalty"),
        ASK | {"options": {"presence_penalty": 0.5, "frequency_penalty": -0.5}},
    ),
    Intent(
        "a bias",
        ASK | {"logit_bias": {"50256": -100}},
        ASK | {"logit_bias": {"50256": -100}},
        Told(INPUT, "logit_bias"),
        Told(claude(messages=[HI]), "logit_bias"),
        Told(ASK, "logit_bias"),
    ),
    Intent(
        "log probabilities",
        ASK | {"logprobs": True, "top_logprobs": 3},
        ASK | {"logprobs": True, "top_logprobs": 3},
        INPUT | {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
        Told(claude(messages=[HI]), "logprobs", "top_logprobs"),
        ASK | {"logprobs": True, "top_logprobs": 3},
        models={"responses": "gpt-4.1"},
    ),
    Intent(
        "two answers",
        ASK | {"n": 2},
        ASK | {"n": 2},
        Refused("n"),
        Refused("n"),
        Refused("n"),
    ),
]

FORMATS = [
    Intent(
        "an answer that obeys a schema",
        ASK
        | {"response_format": {"type": "json_schema", "json_schema": {"name": "t", "schema": SCHEMA, "strict": True}}},
        ASK
        | {"response_format": {"type": "json_schema", "json_schema": {"name": "t", "schema": SCHEMA, "strict": True}}},
        INPUT | {"text": {"format": {"type": "json_schema", "name": "t", "schema": SCHEMA, "strict": True}}},
        claude(messages=[HI], output_config={"format": {"type": "json_schema", "schema": SCHEMA}}),
        ASK | {"format": SCHEMA},
    ),
    Intent(
        "some JSON",
        ASK | {"response_format": {"type": "json_object"}},
        ASK | {"response_format": {"type": "json_object"}},
        INPUT | {"text": {"format": {"type": "json_object"}}},
        Refused("response_format"),
        ASK | {"format": "json"},
    ),
    Intent(
        "text and nothing else",
        ASK | {"response_format": {"type": "text"}},
        ASK | {"response_format": {"type": "text"}},
        INPUT | {"text": {"format": {"type": "text"}}},
        claude(messages=[HI]),
        ASK,
    ),
    Intent(
        "few words",
        ASK | {"verbosity": "low"},
        ASK | {"verbosity": "low"},
        INPUT | {"text": {"verbosity": "low"}},
        Told(claude(messages=[HI]), "verbosity"),
        Told(ASK, "verbosity"),
    ),
]

TOOL_USE = [
    Intent("a tool", TOOLS, TOOLS, TOOLS_FLAT, TOOLS_CLAUDE, TOOLS),
    Intent(
        "a strict tool",
        ASK | {"tools": [{"function": {"name": "t", "parameters": PLACE, "strict": True}}]},
        ASK | {"tools": [{"type": "function", "function": {"name": "t", "parameters": PLACE, "strict": True}}]},
        INPUT | {"tools": [{"type": "function", "name": "t", "parameters": PLACE, "strict": True}]},
        claude(messages=[HI], tools=[{"name": "t", "input_schema": PLACE, "strict": True}]),
        Told(
            ASK | {"tools": [{"type": "function", "function": {"name": "t", "parameters": PLACE}}]},
            "tools.function.strict",
        ),
    ),
    Intent(
        "the functions of old",
        ASK | {"functions": [WEATHER["function"]]},
        TOOLS,
        TOOLS_FLAT,
        TOOLS_CLAUDE,
        TOOLS,
    ),
    Intent(
        "one call at a time",
        TOOLS | {"parallel_tool_calls": False},
        TOOLS | {"parallel_tool_calls": False},
        TOOLS_FLAT | {"parallel_tool_calls": False},
        TOOLS_CLAUDE | {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        Told(TOOLS, "parallel_tool_calls"),
    ),
    Intent(
        "no tool now",
        TOOLS | {"tool_choice": "none"},
        TOOLS | {"tool_choice": "none"},
        TOOLS_FLAT | {"tool_choice": "none"},
        TOOLS_CLAUDE | {"tool_choice": {"type": "none"}},
        ASK,
    ),
    Intent(
        "a tool if the model likes",
        TOOLS | {"tool_choice": "auto"},
        TOOLS | {"tool_choice": "auto"},
        TOOLS_FLAT | {"tool_choice": "auto"},
        TOOLS_CLAUDE | {"tool_choice": {"type": "auto"}},
        TOOLS,
    ),
    Intent(
        "some tool",
        TOOLS | {"tool_choice": "required"},
        TOOLS | {"tool_choice": "required"},
        TOOLS_FLAT | {"tool_choice": "required"},
        TOOLS_CLAUDE | {"tool_choice": {"type": "any"}},
        Told(TOOLS, "tool_choice"),
    ),
    Intent(
        "this tool, once",
        TOOLS | {"tool_choice": {"function": {"name": "weather"}}, "parallel_tool_calls": False},
        TOOLS | {"tool_choice": {"type": "function", "function": {"name": "weather"}}, "parallel_tool_calls": False},
        TOOLS_FLAT | {"tool_choice": {"type": "function", "name": "weather"}, "parallel_tool_calls": False},
        TOOLS_CLAUDE | {"tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}},
        Told(TOOLS, "tool_choice", "parallel_tool_calls"),
    ),
    Intent(
        "one of these tools",
        TWO | {"tool_choice": {"type": "allowed_tools", "mode": "required", "names": ["clock"]}},
        TWO
        | {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "clock"}}],
                },
            }
        },
        TWO_FLAT
        | {
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "clock"}],
            }
        },
        claude(messages=[HI], tools=[CLOCK_CLAUDE], tool_choice={"type": "any"}),
        Told(ASK | {"tools": [CLOCK]}, "tool_choice"),
    ),
    Intent(
        "a call and its result",
        TOOLS
        | {
            "messages": [
                HI,
                {"role": "assistant", "content": "Let me see.", "tool_calls": [call("call_1", "Ulm")]},
                {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
            ]
        },
        TOOLS
        | {
            "messages": [
                HI,
                {"role": "assistant", "content": "Let me see.", "tool_calls": [call("call_1", "Ulm")]},
                {"role": "tool", "tool_call_id": "call_1", "content": "Rain."},
            ]
        },
        TOOLS_FLAT
        | {
            "input": [
                HI,
                {"role": "assistant", "content": "Let me see."},
                called("call_1", "Ulm"),
                {"type": "function_call_output", "call_id": "call_1", "output": "Rain."},
            ]
        },
        TOOLS_CLAUDE
        | {
            "messages": [
                HI,
                {"role": "assistant", "content": [text("Let me see."), used("call_1", "Ulm")]},
                user({"type": "tool_result", "tool_use_id": "call_1", "content": "Rain."}),
            ]
        },
        TOOLS
        | {
            "messages": [
                HI,
                {"role": "assistant", "content": "Let me see.", "tool_calls": [ollama_call("Ulm")]},
                {"role": "tool", "tool_name": "weather", "content": "Rain."},
            ]
        },
    ),
    Intent(
        "two calls, their results, and a word behind",
        TOOLS
        | {
            "messages": [
                HI,
                {"role": "assistant", "tool_calls": [call("a", "Ulm"), call("b", "Rom")]},
                {"role": "tool", "tool_call_id": "a", "content": "Rain."},
                {"role": "tool", "tool_call_id": "b", "content": "Sun."},
                BYE,
            ]
        },
        TOOLS
        | {
            "messages": [
                HI,
                {"role": "assistant", "content": None, "tool_calls": [call("a", "Ulm"), call("b", "Rom")]},
                {"role": "tool", "tool_call_id": "a", "content": "Rain."},
                {"role": "tool", "tool_call_id": "b", "content": "Sun."},
                BYE,
            ]
        },
        TOOLS_FLAT
        | {
            "input": [
                HI,
                called("a", "Ulm"),
                called("b", "Rom"),
                {"type": "function_call_output", "call_id": "a", "output": "Rain."},
                {"type": "function_call_output", "call_id": "b", "output": "Sun."},
                BYE,
            ]
        },
        TOOLS_CLAUDE
        | {
            "messages": [
                HI,
                {"role": "assistant", "content": [used("a", "Ulm"), used("b", "Rom")]},
                user(
                    {"type": "tool_result", "tool_use_id": "a", "content": "Rain."},
                    {"type": "tool_result", "tool_use_id": "b", "content": "Sun."},
                    text("Bye"),
                ),
            ]
        },
        TOOLS
        | {
            "messages": [
                HI,
                {"role": "assistant", "tool_calls": [ollama_call("Ulm"), ollama_call("Rom")]},
                {"role": "tool", "tool_name": "weather", "content": "Rain."},
                {"role": "tool", "tool_name": "weather", "content": "Sun."},
                BYE,
            ]
        },
    ),
    Intent(
        "a result that is a failure",
        {
            "messages": [
                HI,
                {"role": "assistant", "tool_calls": [call("a", "Ulm")]},
                {"role": "tool", "tool_call_id": "a", "content": "No such town.", "is_error": True},
            ]
        },
        Told(
            {
                "messages": [
                    HI,
                    {"role": "assistant", "content": None, "tool_calls": [call("a", "Ulm")]},
                    {"role": "tool", "tool_call_id": "a", "content": "No such town."},
                ]
            },
            "messages.is_error",
        ),
        Told(
            {
                "input": [
                    HI,
                    called("a", "Ulm"),
                    {"type": "function_call_output", "call_id": "a", "output": "No such town."},
                ]
            },
            "messages.is_error",
        ),
        claude(
            messages=[
                HI,
                {"role": "assistant", "content": [used("a", "Ulm")]},
                user({"type": "tool_result", "tool_use_id": "a", "content": "No such town.", "is_error": True}),
            ]
        ),
        Told(
            {
                "messages": [
                    HI,
                    {"role": "assistant", "tool_calls": [ollama_call("Ulm")]},
                    {"role": "tool", "tool_name": "weather", "content": "No such town."},
                ]
            },
            "messages.is_error",
        ),
    ),
    Intent(
        "a result with an image",
        {
            "messages": [
                HI,
                {"role": "assistant", "tool_calls": [call("a", "Ulm")]},
                {"role": "tool", "tool_call_id": "a", "content": [text("See:"), image(PIXEL_URL)]},
            ]
        },
        {
            "messages": [
                HI,
                {"role": "assistant", "content": None, "tool_calls": [call("a", "Ulm")]},
                {"role": "tool", "tool_call_id": "a", "content": "See:"},
                user(image(PIXEL_URL)),
            ]
        },
        {
            "input": [
                HI,
                called("a", "Ulm"),
                {
                    "type": "function_call_output",
                    "call_id": "a",
                    "output": [input_text("See:"), image_in(PIXEL_URL)],
                },
            ]
        },
        claude(
            messages=[
                HI,
                {"role": "assistant", "content": [used("a", "Ulm")]},
                user({"type": "tool_result", "tool_use_id": "a", "content": [text("See:"), PIXEL_CLAUDE]}),
            ]
        ),
        {
            "messages": [
                HI,
                {"role": "assistant", "tool_calls": [ollama_call("Ulm")]},
                {"role": "tool", "tool_name": "weather", "content": "See:", "images": [PIXEL]},
            ]
        },
    ),
    Intent(
        "a tool that takes free text",
        ASK | {"tools": [{"type": "custom", "custom": {"name": "shell", "description": "Runs it."}}]},
        ASK | {"tools": [{"type": "custom", "custom": {"name": "shell", "description": "Runs it."}}]},
        INPUT | {"tools": [{"type": "custom", "name": "shell", "description": "Runs it."}]},
        Refused("tools"),
        Refused("tools"),
    ),
    Intent(
        "a call of free text and its result",
        {
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "c", "type": "custom", "function": {"name": "shell", "arguments": "ls"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "a b"},
            ]
        },
        {
            "messages": [
                HI,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "a b"},
            ]
        },
        {
            "input": [
                HI,
                {"type": "custom_tool_call", "call_id": "c", "name": "shell", "input": "ls"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": "a b"},
            ]
        },
        claude(
            messages=[
                HI,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "c", "name": "shell", "input": {"input": "ls"}}],
                },
                user({"type": "tool_result", "tool_use_id": "c", "content": "a b"}),
            ]
        ),
        {
            "messages": [
                HI,
                {"role": "assistant", "tool_calls": [{"function": {"name": "shell", "arguments": {"input": "ls"}}}]},
                {"role": "tool", "tool_name": "shell", "content": "a b"},
            ]
        },
    ),
]

MEDIA = [
    Intent(
        "an image by its URL, in detail",
        {"messages": [user(text("What?"), image(CAT_URL, "high"))]},
        {"messages": [user(text("What?"), image(CAT_URL, "high"))]},
        {"input": [user(input_text("What?"), image_in(CAT_URL, "high"))]},
        Told(claude(messages=[user(text("What?"), CAT_CLAUDE)]), "messages.content.image_url.detail"),
        Refused("messages.content.image_url.url"),
    ),
    Intent(
        "an image that comes along",
        {"messages": [user(text("What?"), image(PIXEL_URL))]},
        {"messages": [user(text("What?"), image(PIXEL_URL))]},
        {"input": [user(input_text("What?"), image_in(PIXEL_URL))]},
        claude(messages=[user(text("What?"), PIXEL_CLAUDE)]),
        {"messages": [{"role": "user", "content": "What?", "images": [PIXEL]}]},
    ),
    Intent(
        "something to listen to",
        {"messages": [user({"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}})]},
        {"messages": [user({"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}})]},
        Refused("messages.content"),
        Refused("messages.content"),
        Refused("messages.content"),
    ),
    Intent(
        "a document that the vendor has",
        {"messages": [user(text("Sum up."), {"type": "file", "file": {"file_id": "file_1"}})]},
        {"messages": [user(text("Sum up."), {"type": "file", "file": {"file_id": "file_1"}})]},
        {"input": [user(input_text("Sum up."), {"type": "input_file", "file_id": "file_1"})]},
        claude(
            messages=[user(text("Sum up."), {"type": "document", "source": {"type": "file", "file_id": "file_1"}})],
            extra_headers={"anthropic-beta": "files-api-2025-04-14"},
        ),
        Refused("messages.content"),
    ),
    Intent(
        "a document that comes along",
        {"messages": [user({"type": "file", "file": {"file_data": PDF_URL, "filename": "a.pdf"}})]},
        {"messages": [user({"type": "file", "file": {"file_data": PDF_URL, "filename": "a.pdf"}})]},
        {"input": [user({"type": "input_file", "file_data": PDF_URL, "filename": "a.pdf"})]},
        claude(
            messages=[
                user(
                    {
                        "type": "document",
                        "title": "a.pdf",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                    }
                )
            ]
        ),
        Refused("messages.content"),
    ),
    Intent(
        "a document by its URL",
        {"messages": [user({"type": "file", "file": {"file_url": "https://example.com/a.pdf"}})]},
        Refused("messages.content.file.file_url"),
        {"input": [user({"type": "input_file", "file_url": "https://example.com/a.pdf"})]},
        claude(messages=[user({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}})]),
        Refused("messages.content"),
    ),
    Intent(
        "a document with a title, a context, and citations",
        {
            "messages": [
                user(
                    {
                        "type": "file",
                        "file": {"file_data": PDF_URL},
                        "title": "A",
                        "context": "Old.",
                        "citations": True,
                    }
                )
            ]
        },
        Told(
            {"messages": [user({"type": "file", "file": {"file_data": PDF_URL}})]},
            *("messages.content.title", "messages.content.context", "messages.content.citations"),
        ),
        Told(
            {"input": [user({"type": "input_file", "file_data": PDF_URL})]},
            *("messages.content.title", "messages.content.context", "messages.content.citations"),
        ),
        claude(
            messages=[
                user(
                    {
                        "type": "document",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                        "title": "A",
                        "context": "Old.",
                        "citations": {"enabled": True},
                    }
                )
            ]
        ),
        Refused("messages.content"),
    ),
]

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "eHh4"}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}


def answer(format: str, *items: Kwargs, **fields: Any) -> Kwargs:
    """An answer as it came back, with what its provider wants to see again."""
    native = {"format": format, "model": MODELS[format], "items": list(items)}
    return {"role": "assistant", "native": native, **fields}


REASONING = [
    Intent(
        "some effort",
        ASK | {"reasoning_effort": "high"},
        ASK | {"reasoning_effort": "high"},
        INPUT | {"reasoning": {"effort": "high"}},
        claude(messages=[HI], output_config={"effort": "high"}),
        ASK | {"think": "high"},
        models={"openai": "gpt-5.1"},
    ),
    Intent(
        "a budget for thinking",
        ASK | {"reasoning_budget": 2000, "max_tokens": 5000},
        Told(ASK | {"max_completion_tokens": 5000}, "reasoning_budget"),
        Told(INPUT | {"max_output_tokens": 5000}, "reasoning_budget"),
        claude(messages=[HI], max_tokens=5000, thinking={"type": "enabled", "budget_tokens": 2000}),
        Told(ASK | {"think": True, "options": {"num_predict": 5000}}, "reasoning_budget"),
        models={"anthropic": "claude-sonnet-4-5", "openai": "gpt-5.1"},
    ),
    Intent(
        "a summary of the thoughts",
        ASK | {"reasoning_summary": "auto", "reasoning_effort": "low"},
        Told(ASK | {"reasoning_effort": "low"}, "reasoning_summary"),
        INPUT | {"reasoning": {"effort": "low", "summary": "auto"}},
        claude(
            messages=[HI],
            thinking={"type": "adaptive", "display": "summarized"},
            output_config={"effort": "low"},
        ),
        Told(ASK | {"think": "low"}, "reasoning_summary"),
        models={"openai": "gpt-5.1"},
    ),
    Intent(
        "signed thoughts that go back",
        {
            "messages": [
                HI,
                answer(
                    "anthropic",
                    THOUGHT,
                    text("Wait."),
                    used("a", "Ulm"),
                    content="Wait.",
                    reasoning="Hm.",
                    tool_calls=[call("a", "Ulm")],
                ),
                {"role": "tool", "tool_call_id": "a", "content": "Rain."},
            ]
        },
        {
            "messages": [
                HI,
                {"role": "assistant", "content": "Wait.", "tool_calls": [call("a", "Ulm")]},
                {"role": "tool", "tool_call_id": "a", "content": "Rain."},
            ]
        },
        {
            "input": [
                HI,
                {"role": "assistant", "content": "Wait."},
                called("a", "Ulm"),
                {"type": "function_call_output", "call_id": "a", "output": "Rain."},
            ]
        },
        claude(
            messages=[
                HI,
                {"role": "assistant", "content": [THOUGHT, text("Wait."), used("a", "Ulm")]},
                user({"type": "tool_result", "tool_use_id": "a", "content": "Rain."}),
            ]
        ),
        {
            "messages": [
                HI,
                {"role": "assistant", "content": "Wait.", "thinking": "Hm.", "tool_calls": [ollama_call("Ulm")]},
                {"role": "tool", "tool_name": "weather", "content": "Rain."},
            ]
        },
    ),
    Intent(
        "hidden thoughts that go back",
        {"messages": [HI, answer("anthropic", HIDDEN, text("Hello."), content="Hello."), BYE]},
        {"messages": [HI, HELLO, BYE]},
        {"input": [HI, HELLO, BYE]},
        claude(messages=[HI, {"role": "assistant", "content": [HIDDEN, text("Hello.")]}, BYE]),
        {"messages": [HI, HELLO, BYE]},
    ),
    Intent(
        "sealed thoughts that go back",
        {
            "messages": [
                HI,
                answer(
                    "responses",
                    SEALED,
                    called("a", "Ulm") | {"id": "fc_1", "status": "completed"},
                    tool_calls=[call("a", "Ulm")],
                ),
                {"role": "tool", "tool_call_id": "a", "content": "Rain."},
            ]
        },
        {
            "messages": [
                HI,
                {"role": "assistant", "content": None, "tool_calls": [call("a", "Ulm")]},
                {"role": "tool", "tool_call_id": "a", "content": "Rain."},
            ]
        },
        {
            "input": [
                HI,
                SEALED,
                called("a", "Ulm") | {"id": "fc_1", "status": "completed"},
                {"type": "function_call_output", "call_id": "a", "output": "Rain."},
            ]
        },
        claude(
            messages=[
                HI,
                {"role": "assistant", "content": [used("a", "Ulm")]},
                user({"type": "tool_result", "tool_use_id": "a", "content": "Rain."}),
            ]
        ),
        {
            "messages": [
                HI,
                {"role": "assistant", "tool_calls": [ollama_call("Ulm")]},
                {"role": "tool", "tool_name": "weather", "content": "Rain."},
            ]
        },
    ),
    Intent(
        "open thoughts that go back",
        {"messages": [HI, HELLO | {"reasoning": "Hm."}, BYE]},
        {"messages": [HI, HELLO, BYE]},
        {"input": [HI, HELLO, BYE]},
        claude(messages=[HI, HELLO, BYE]),
        {"messages": [HI, HELLO | {"thinking": "Hm."}, BYE]},
    ),
]

KEEP = {"type": "ephemeral"}
CACHING = [
    Intent(
        "a mark that OpenAI's newest models take",
        {"messages": [user(text("Long.", cache_control=KEEP), text("Hi"))]},
        {"messages": [user(text("Long.", prompt_cache_breakpoint={"mode": "explicit"}), text("Hi"))]},
        {"input": [user(input_text("Long.") | {"prompt_cache_breakpoint": {"mode": "explicit"}}, input_text("Hi"))]},
        models={"openai": "gpt-5.6", "responses": "gpt-5.6"},
    ),
    Intent(
        "a mark behind a part",
        {"messages": [user(text("Long.", cache_control=KEEP), text("Hi"))]},
        Told({"messages": [user(text("Long."), text("Hi"))]}, "messages.content.cache_control"),
        Told({"input": [user(input_text("Long."), input_text("Hi"))]}, "messages.content.cache_control"),
        claude(messages=[user(text("Long.", cache_control=KEEP), text("Hi"))]),
        Told({"messages": [HI | {"content": "Long.Hi"}]}, "messages.content.cache_control"),
    ),
    Intent(
        "a mark behind the system text, for an hour",
        {"messages": [{"role": "system", "content": [text("Long.", cache_control=KEEP | {"ttl": "1h"})]}, HI]},
        Told({"messages": [{"role": "system", "content": [text("Long.")]}, HI]}, "messages.content.cache_control"),
        Told({"input": [{"role": "system", "content": [input_text("Long.")]}, HI]}, "messages.content.cache_control"),
        claude(system=[text("Long.", cache_control=KEEP | {"ttl": "1h"})], messages=[HI]),
        Told({"messages": [{"role": "system", "content": "Long."}, HI]}, "messages.content.cache_control"),
    ),
    Intent(
        "a mark behind the tools",
        ASK | {"tools": [WEATHER | {"cache_control": KEEP}]},
        Told(TOOLS, "tools.cache_control"),
        Told(TOOLS_FLAT, "tools.cache_control"),
        claude(messages=[HI], tools=[WEATHER_CLAUDE | {"cache_control": KEEP}]),
        Told(TOOLS, "tools.cache_control"),
    ),
    Intent(
        "a mark for the whole request",
        ASK | {"cache_control": KEEP},
        Told(ASK, "cache_control"),
        Told(INPUT, "cache_control"),
        claude(messages=[HI], cache_control=KEEP),
        Told(ASK, "cache_control"),
    ),
    Intent(
        "a name for the cache",
        ASK | {"prompt_cache_key": "k"},
        ASK | {"prompt_cache_key": "k"},
        INPUT | {"prompt_cache_key": "k"},
        Told(claude(messages=[HI]), "prompt_cache_key"),
        Told(ASK, "prompt_cache_key"),
    ),
]

ACCOUNT = [
    Intent(
        "a stream with usage",
        ASK | {"stream": True},
        ASK | {"stream": True, "stream_options": {"include_usage": True}},
        INPUT | {"stream": True},
        claude(messages=[HI], stream=True),
        ASK | {"stream": True},
    ),
    Intent(
        "notes",
        ASK | {"metadata": {"order": "1"}},
        ASK | {"metadata": {"order": "1"}},
        INPUT | {"metadata": {"order": "1"}},
        Told(claude(messages=[HI]), "metadata"),
        Told(ASK, "metadata"),
    ),
    Intent(
        "on whose behalf",
        ASK | {"user": "u1"},
        ASK | {"user": "u1"},
        INPUT | {"user": "u1"},
        claude(messages=[HI], metadata={"user_id": "u1"}),
        Told(ASK, "user"),
    ),
    Intent(
        "a tier",
        ASK | {"service_tier": "flex"},
        ASK | {"service_tier": "flex"},
        INPUT | {"service_tier": "flex"},
        Told(ASK, "service_tier"),
        Told(ASK, "service_tier"),
    ),
    Intent(
        "a tier of Anthropic's",
        ASK | {"service_tier": "standard_only"},
        anthropic=claude(messages=[HI], service_tier="standard_only"),
    ),
    Intent(
        "what only one vendor knows",
        ASK
        | {
            "extra": {
                "openai": {"store": True},
                "openai_responses": {"truncation": "auto"},
                "anthropic": {"inference_geo": "eu"},
                "ollama": {"keep_alive": "5m"},
            }
        },
        ASK | {"store": True},
        INPUT | {"truncation": "auto"},
        claude(messages=[HI], inference_geo="eu"),
        ASK | {"keep_alive": "5m"},
    ),
]

INTENTS = [*CONVERSATION, *SAMPLING, *FORMATS, *TOOL_USE, *MEDIA, *REASONING, *CACHING, *ACCOUNT]

EMBEDDINGS = [
    Intent(
        "texts to turn into vectors",
        {"input": ["Hi", "Bye"]},
        openai={"input": ["Hi", "Bye"], "encoding_format": "base64"},
        ollama={"input": ["Hi", "Bye"]},
    ),
    Intent(
        "short vectors",
        {"input": ["Hi"], "dimensions": 256},
        openai={"input": ["Hi"], "dimensions": 256, "encoding_format": "base64"},
        ollama={"input": ["Hi"], "dimensions": 256},
    ),
    Intent(
        "a text in token numbers",
        {"input": [[15496, 995]]},
        openai={"input": [[15496, 995]], "encoding_format": "base64"},
        ollama=Refused("input"),
    ),
    Intent(
        "vectors on somebody's behalf",
        {"input": ["Hi"], "user": "u1"},
        openai={"input": ["Hi"], "user": "u1", "encoding_format": "base64"},
    ),
]

COUNTS = [
    Intent("the tokens of a question", ASK, anthropic=ASK),
    Intent(
        "the tokens of a system text, a tool and a stream that is asked for",
        TOOLS | {"system": "Be brief.", "stream": True, "max_tokens": 9},
        anthropic={"system": "Be brief.", "messages": [HI], "tools": [WEATHER_CLAUDE]},
    ),
]
