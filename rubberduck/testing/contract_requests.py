"""The part of a provider's contract about what it sends: every request is encoded whole, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.http import HTTPProvider
from rubberduck.testing.contract_base import KEY, Promises
from rubberduck.types import Request

_PIXEL = "data:image/png;base64,iVBORw0KGgo="
_WEATHER = {
    "name": "weather",
    "description": "How it is outside.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_TOOLS = {"tools": [{"type": "function", "function": _WEATHER}]}
_SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _calls(*arguments: str) -> dict[str, Any]:
    calls = [
        {"id": f"call_{number}", "function": {"name": "weather", "arguments": text}}
        for number, text in enumerate(arguments)
    ]
    return {"role": "assistant", "tool_calls": calls}


def _result(number: int, content: Any = "fine", **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content, **more}


INTENTS: dict[str, dict[str, Any]] = {
    "a question": {},
    "a conversation": {"messages": [_user("a"), {"role": "assistant", "content": "b"}, _user("c")]},
    "system text": {"messages": [{"role": "system", "content": "Be brief."}, _user("Hi")]},
    "system text in the middle": {"messages": [_user("Hi"), {"role": "system", "content": "Now."}, _user("Go")]},
    "any letters": {"messages": [_user("\u2028 \u0085 🦆 e\u0301 \x00 \"'\\ </s> \r\n")]},
    "turns of one role": {"messages": [_user("a"), _user("b")]},
    "an empty turn": {"messages": [_user("a"), {"role": "assistant", "content": ""}, _user("b")]},
    "parts": {"messages": [_user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]},
    "an image": {"messages": [_user([{"type": "image_url", "image_url": {"url": _PIXEL}}])]},
    "an image elsewhere": {
        "messages": [_user([{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}])]
    },
    "a recording": {"messages": [_user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}])]},
    "a document": {
        "messages": [
            _user([{"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a"}}])
        ]
    },
    "tools": _TOOLS,
    "a tool without parameters": {"tools": [{"type": "function", "function": {"name": "now"}}]},
    "a tool of free text": {"tools": [{"type": "custom", "custom": {"name": "note"}}]},
    "a tool that must be used": {**_TOOLS, "tool_choice": {"type": "function", "function": {"name": "weather"}}},
    "a tool's result": {**_TOOLS, "messages": [_user("?"), _calls('{"city": "Bern"}'), _result(0)]},
    "several results": {
        **_TOOLS,
        "messages": [_user("?"), _calls("{}", "{}"), _result(0), _result(1, "", is_error=True)],
    },
    "arguments that are no JSON": {**_TOOLS, "messages": [_user("?"), _calls('{"city": "Be'), _result(0)]},
    "arguments that are no object": {**_TOOLS, "messages": [_user("?"), _calls("[1]"), _result(0)]},
    "a result of parts": {
        **_TOOLS,
        "messages": [
            _user("?"),
            _calls("{}"),
            _result(0, [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": _PIXEL}}]),
        ],
    },
    "an old function call": {
        "messages": [
            _user("?"),
            {"role": "assistant", "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "fine"},
        ]
    },
    "a refusal": {"messages": [_user("?"), {"role": "assistant", "refusal": "No."}, _user("Why?")]},
    "reasoning": {"messages": [_user("?"), {"role": "assistant", "content": "a", "reasoning": "hm"}, _user("b")]},
    "another provider's own words": {
        "messages": [
            _user("?"),
            {
                "role": "assistant",
                "content": "a",
                "native": {"format": "elsewhere", "model": "m", "items": [{"type": "secret", "data": "x"}]},
            },
            _user("b"),
        ]
    },
    "a stream": {"stream": True},
}
"""What users ask, by a name for each: fields of a request beside the model."""

FIELDS: dict[str, Any] = {
    "max_tokens": 321, "temperature": 0.25, "top_p": 0.75, "top_k": 7, "stop": ["HALT"], "seed": 4242, "n": 2,
    "presence_penalty": 0.5, "frequency_penalty": 0.5, "logit_bias": {"17": 1.0}, "logprobs": True, "user": "u-1",
    "reasoning_effort": "low", "reasoning_budget": 2048, "verbosity": "low", "prompt_cache_key": "k-1",
    "service_tier": "flex", "metadata": {"a": "b"}, "cache_control": {"type": "ephemeral"},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA}},
}  # fmt: skip
"""One value for each field that must be sent, or named in a warning, or refused."""
TOOL_FIELDS: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False}


class RequestPromises(Promises):
    """What holds for every request. A provider that is no `HTTPProvider` has no `encode`, and is passed over."""

    refuses: tuple[dict[str, Any], ...] = ()
    """Requests, without their model, that the provider must refuse with InvalidRequest."""
    drops: tuple[str, ...] = ()
    """Fields of a request that are known to be left out without a word. Better have none."""

    def test_every_request_is_an_object_of_json_or_refused(self) -> None:
        for provider in self._translators():
            for name, request in self._intents():
                sent = _sent(provider, request, name)
                if sent is None:
                    continue
                path, headers, body = sent
                self.promise(isinstance(path, str), f"{name}: the path is {path!r}")
                told = all(isinstance(each, str) and "\n" not in each for pair in headers.items() for each in pair)
                self.promise(told, f"{name}: headers are text without line breaks, not {dict(headers)!r}")
                try:
                    text = json.dumps(body, allow_nan=False)
                except (TypeError, ValueError) as error:
                    raise AssertionError(f"{name}: the body is no JSON: {error}") from error
                self.promise(text.startswith("{"), f"{name}: the body is no object")

    def test_encoding_changes_nothing_and_gives_the_same_again(self) -> None:
        for provider in self._translators():
            for name, request in self._intents():
                before = request.model_dump_json()
                first, second = _sent(provider, request, name), _sent(provider, request, name)
                self.promise(first == second, f"{name}: encoded twice, it differs")
                self.promise(request.model_dump_json() == before, f"{name}: encoding changes the request")

    def test_the_model_is_sent_and_the_key_is_in_no_body(self) -> None:
        for provider in self._translators():
            for name, request in self._intents():
                if (sent := _sent(provider, request, name)) is not None:
                    text = sent[0] + json.dumps(sent[2])
                    self.promise(self.model in text, f"{name}: neither path nor body names the model {self.model!r}")
                    self.promise(KEY not in text, f"{name}: the key stands in the path or the body")

    def test_parameters_of_its_own_are_passed_on(self) -> None:
        for provider in self._translators():
            for extra in ({"duck_parameter": "quack-1"}, {provider.name: {"duck_parameter": "quack-1"}}):
                _, _, body = provider.encode(self.ask(extra=extra))
                self.promise("quack-1" in json.dumps(body), f"extra {extra!r} is not in the body")

    def test_no_field_is_dropped_without_a_word(self) -> None:
        for provider in self._translators():
            fields = {**FIELDS, **TOOL_FIELDS}
            silent = [name for name in fields if not self._is_told(provider, name, fields[name])]
            left = [name for name in silent if name not in self.drops]
            self.promise(not left, f"neither sent, nor named in a warning, nor refused: {', '.join(left)}")

    def _is_told(self, provider: HTTPProvider, name: str, value: Any) -> bool:
        base = _TOOLS if name in TOOL_FIELDS else {}
        request = self.ask(**base, **{name: value})
        try:
            changes = provider.encode(request)[2] != provider.encode(self.ask(**base))[2]
        except InvalidRequest as error:
            self.promise(bool(error.field), f"{name} is refused, but the error has no `field`")
            return True
        return changes or any(name in text for text in provider.warnings(request))

    def test_what_it_cannot_do_is_refused(self) -> None:
        for provider in self._translators():
            for fields in self.refuses:
                try:
                    provider.encode(self.ask(**fields))
                except InvalidRequest as error:
                    self.promise(bool(error.field), f"{fields!r} is refused, but the error has no `field`")
                else:
                    raise AssertionError(f"{fields!r} is not refused")

    def _translators(self) -> Iterator[HTTPProvider]:
        """The provider, if it has requests that can be looked at without sending them."""
        with self.made() as provider:
            if isinstance(provider, HTTPProvider):
                yield provider

    def _intents(self) -> Iterator[tuple[str, Request]]:
        for name, fields in INTENTS.items():
            yield name, self.ask(**fields)


def _sent(provider: HTTPProvider, request: Request, name: str) -> Any:
    """What is sent for a request; None where it is refused, as it may be."""
    try:
        return provider.encode(request)
    except InvalidRequest as error:
        if not error.field:
            raise AssertionError(f"{name}: refused, but the error has no `field`: {error}") from error
        return None
