"""Secrets are found in any disguise they are likely to wear, and nothing else is touched."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from rubberduck.telemetry.redaction import REDACTED, Redactor, is_secret_field

CANARY = 'canary/+"4711"\\end&x=y'


@pytest.mark.parametrize("around", ["{}", "a{}b", "key: {}.", "{}{}"])
@pytest.mark.parametrize(
    "form",
    [
        CANARY,
        json.dumps(CANARY)[1:-1],
        quote(CANARY, safe=""),
        quote(CANARY),
        quote_plus(CANARY),
        repr(CANARY)[1:-1],
        base64.b64encode(CANARY.encode()).decode().rstrip("=")[:-1],
        base64.urlsafe_b64encode(CANARY.encode()).decode().rstrip("=")[:-1],
    ],
)
def test_a_known_secret_is_found_in_each_of_its_forms(form: str, around: str) -> None:
    redacted = Redactor([CANARY]).text(around.replace("{}", form))
    assert REDACTED in redacted
    assert form not in redacted


key_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=60)


@given(key_text, st.binary(max_size=9), st.binary(max_size=9))
def test_a_secret_within_something_encoded_is_found_wherever_it_begins(
    secret: str, before: bytes, after: bytes
) -> None:
    redactor = Redactor([secret])
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(before + secret.encode() + after).decode()
        left = redactor.text(text).replace(REDACTED, "")
        assert len(left) <= len(text) - len(secret) * 8 // 6 + 2


@given(key_text, st.text(max_size=30), st.text(max_size=30))
def test_no_text_comes_out_with_the_secret_in_it(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([SecretStr(secret)]).text(before + secret + after).replace(REDACTED, " ")


@given(st.text(max_size=60))
def test_without_secrets_ordinary_text_stays_as_it_is(text: str) -> None:
    if (
        "://" not in text
        and "earer" not in text.lower()
        and "asic" not in text.lower()
        and "_" not in text
        and "-" not in text
    ):
        assert Redactor(["a-secret-value"]).text(text) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Authorization: Bearer abcdefghijkl.mno", f"Authorization: Bearer {REDACTED}"),
        ("invalid key sk-proj-abcdefghijklmnopqrstuv!", f"invalid key {REDACTED}!"),
        ("rdk_ab_0123456789abcdefghij", REDACTED),
        ("postgresql://duck:pass@db/x", f"postgresql://{REDACTED}@db/x"),
        ("a task-force-of-twenty-people", "a task-force-of-twenty-people"),
        ("sk-learn", "sk-learn"),
        ("see https://host/path?x=1", "see https://host/path?x=1"),
    ],
)
def test_what_looks_like_a_secret_is_taken_for_one(text: str, kept: str) -> None:
    assert Redactor().text(text) == kept


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "API-KEY",
        "apikey",
        "api_keys",
        "x-api-key",
        "Authorization",
        "Proxy-Authorization",
        "password",
        "db_password",
        "client_secret",
        "Set-Cookie",
        "access_token",
        "openai_api_key",
        "private_key",
    ],
)
def test_fields_that_hold_secrets_are_known_by_name(name: str) -> None:
    assert is_secret_field(name)
    assert Redactor().value({name: "harmless"}) == {name: REDACTED}


@pytest.mark.parametrize(
    "name", ["tokens", "max_tokens", "model", "key", "author", "prompt_tokens", "cookies_eaten", "token_type"]
)
def test_other_fields_are_left_alone(name: str) -> None:
    assert not is_secret_field(name)
    assert Redactor().value({name: "harmless"}) == {name: "harmless"}


@dataclass
class Holder:
    key: str


def test_secrets_are_found_at_any_depth_and_in_foreign_objects() -> None:
    redactor = Redactor(["canary-4711"])
    value: dict[str, Any] = {
        "a": [{"b": ("x canary-4711", 5, None, True)}],
        "canary-4711": 1,
        "object": Holder("canary-4711"),
        "error": ValueError("canary-4711"),
        "secret": SecretStr("whatever"),
        "wrapped": SecretStr("whatever"),
        "api_keys": ["x", "y"],
        "password": None,
    }
    before = repr(value)
    redacted = redactor.value(value)
    assert "canary" not in repr(redacted)
    assert "whatever" not in repr(redacted)
    assert redacted["a"] == [{"b": [f"x {REDACTED}", 5, None, True]}]
    assert redacted["api_keys"] == REDACTED
    assert redacted["password"] is None
    assert repr(value) == before


def test_a_value_that_contains_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "..." in repr(Redactor().value(loop))


def test_secrets_may_be_learned_later_and_none_is_forgotten() -> None:
    redactor = Redactor(["first-secret"])
    redactor.learn(["second-secret", "", "abc"])
    assert redactor.text("first-secret second-secret abc") == f"{REDACTED} {REDACTED} abc"


def test_the_longer_of_two_secrets_is_replaced_whole() -> None:
    assert Redactor(["secret", "secret-and-more"]).text("secret-and-more") == REDACTED


def test_it_is_a_structlog_processor_for_events_and_for_lines() -> None:
    redactor = Redactor(["canary-4711"])
    assert redactor(None, "info", {"event": "x canary-4711"}) == {"event": f"x {REDACTED}"}
    assert redactor(None, "info", "line canary-4711") == f"line {REDACTED}"
    assert redactor(None, "info", b"line canary-4711") == f"line {REDACTED}".encode()
