"""Vendors' JSON is read without trust: what comes back can be written again, whatever came."""

from __future__ import annotations

import json

import pytest

from rubberduck.providers.reading import parse_json

LONE = [b'"\\ud800"', b'"\\uDFFF"', b'"\xed\xa0\x80"', b'"\\udc00\\ud800"']


@pytest.mark.parametrize("half", LONE)
@pytest.mark.parametrize("place", [b"%s", b"[1, [%s]]", b'{"a": {"b": %s}}', b"{%s: null}"])
def test_half_a_surrogate_pair_is_read_as_what_can_be_written(half: bytes, place: bytes) -> None:
    """What was kept as it came, such as sealed reasoning, could not be stored: no UTF-8 holds such a letter."""
    value = parse_json(place % half)
    json.dumps(value, ensure_ascii=False).encode()
    assert "\ufffd" in json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("text", ["🦆", "\u2028", "\\", "\ud7ff", "\ue000", "\\ud800 in words"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_is_text_stays_as_it_is(text: str, ascii_only: bool) -> None:
    value = {"a": [text, {text: 1}], "b": None}
    written = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(written) == parse_json(written.encode()) == value


@pytest.mark.parametrize("body", ["[" * 100_000, b'{"a":' * 100_000, '["\\ud800", ' + "[" * 5000 + "]" * 5000 + "]"])
def test_what_is_nested_beyond_reading_is_no_json(body: bytes | str) -> None:
    with pytest.raises(ValueError):
        parse_json(body)
