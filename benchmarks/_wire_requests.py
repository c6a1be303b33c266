"""One request as a user writes it, to us and to each official SDK: four turns, a result, two tools, some settings."""

from __future__ import annotations

from typing import Any

PARAMETERS = {
    "type": "object",
    "properties": {"place": {"type": "string", "description": "A town."}, "days": {"type": "integer"}},
    "required": ["place"],
}
NAMES = {"forecast": "The weather of the next days.", "history": "The weather of past days."}
SYSTEM = {"role": "system", "content": "You are a weather duck. Be brief, and say where figures come from. " * 4}
QUESTION = {"role": "user", "content": "What will the weather be like in Ulm, and what was it like? " * 3}
LAST = {"role": "user", "content": "And in Rome?"}
WORDS = "Three days of rain are ahead, with little wind. " * 5
ARGUMENTS = {"place": "Ulm", "days": 3}
WRITTEN = '{"place":"Ulm","days":3}'
RESULT = "rain, 8 to 11 degrees; rain, 7 to 10 degrees; showers, 6 to 12 degrees"

_FUNCTIONS = [{"name": name, "description": said, "parameters": PARAMETERS} for name, said in NAMES.items()]
_TOOLS = [{"type": "function", "function": function} for function in _FUNCTIONS]
_CALL = {"id": "call_1", "type": "function", "function": {"name": "forecast", "arguments": WRITTEN}}
_TURNS = [
    SYSTEM,
    QUESTION,
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": RESULT},
    {"role": "assistant", "content": WORDS},
    LAST,
]

OURS: dict[str, Any] = {"model": "m", "messages": _TURNS, "tools": _TOOLS, "max_tokens": 500}

THEIRS: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "messages": _TURNS, "tools": _TOOLS, "max_tokens": 500},
    "openai_responses": {
        "model": "m",
        "input": [
            SYSTEM,
            QUESTION,
            {"type": "function_call", "call_id": "call_1", "name": "forecast", "arguments": WRITTEN},
            {"type": "function_call_output", "call_id": "call_1", "output": RESULT},
            {"role": "assistant", "content": WORDS},
            LAST,
        ],
        "tools": [{"type": "function", "strict": False} | function for function in _FUNCTIONS],
        "max_output_tokens": 500,
    },
    "anthropic": {
        "model": "m",
        "system": SYSTEM["content"],
        "messages": [
            QUESTION,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "call_1", "name": "forecast", "input": ARGUMENTS}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": RESULT}]},
            {"role": "assistant", "content": WORDS},
            LAST,
        ],
        "tools": [
            {"name": function["name"], "description": function["description"], "input_schema": PARAMETERS}
            for function in _FUNCTIONS
        ],
        "max_tokens": 500,
    },
    "ollama": {
        "model": "m",
        "messages": [
            SYSTEM,
            QUESTION,
            {"role": "assistant", "tool_calls": [{"function": {"name": "forecast", "arguments": ARGUMENTS}}]},
            {"role": "tool", "tool_name": "forecast", "content": RESULT},
            {"role": "assistant", "content": WORDS},
            LAST,
        ],
        "tools": _TOOLS,
        "options": {"num_predict": 500},
    },
}
"""What a user of the SDK writes for `OURS`."""
