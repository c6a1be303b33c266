"""Who may have a model's sealed thoughts back."""

from __future__ import annotations

import pytest

from rubberduck.providers.model_names import asked_as, is_same_model, is_written_by
from rubberduck.types import Native

SAME = [
    ("gpt-5.1", "gpt-5.1-2025-11-13"),
    ("claude-opus-4-6", "claude-opus-4-6-20260205"),
    ("claude-opus-4-0", "claude-opus-4-20250514"),
    ("claude-sonnet-4-5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
    ("anthropic/claude-sonnet-4", "anthropic/claude-4-sonnet-20250522"),
    ("anthropic/claude-sonnet-4.5:thinking", "anthropic/claude-4.5-sonnet-20250929"),
    ("gemini-3-pro-preview", "gemini-3-pro-preview"),
    ("models/gemini-3-pro", "gemini-3-pro"),
]
OTHERS = [
    ("gpt-5.1", "gpt-5.1-mini"),
    ("gpt-5.1", "gpt-5.2"),
    ("gpt-5.1-2025-11-13", "gpt-5.1-2025-12-01"),
    ("gpt-5", "gpt-5.1-2025-11-13"),
    ("m", "m-other"),
    ("claude-opus-4-5", "claude-opus-4-6"),
    ("claude-opus-4-5", "claude-opus-5-4"),
    ("anthropic/claude-sonnet-4", "anthropic/claude-opus-4"),
    ("one/model", "two/model"),
    ("o1", "o1-pro"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_these_are_one_model(one: str, other: str) -> None:
    assert is_same_model(one, other)
    assert is_same_model(other, one)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_these_are_two(one: str, other: str) -> None:
    assert not is_same_model(one, other)
    assert not is_same_model(other, one)


def test_what_was_asked_for_counts_as_well_as_what_answered() -> None:
    native = asked_as(Native(format="gemini", model="gemini-3-flash-preview", items=()), "gemini-flash-latest")
    assert native is not None
    assert native.asked == "gemini-flash-latest"
    for model in ("gemini-flash-latest", "gemini-3-flash-preview", "models/gemini-3-flash-preview"):
        assert is_written_by(native, model)
    for model in ("gemini-pro-latest", "gemini-3-pro-preview", ""):
        assert not is_written_by(native, model)


@pytest.mark.parametrize(("asked", "answered"), [("gpt-5.1", "gpt-5.1-2025-11-13"), ("", "gpt-5.1")])
def test_a_name_that_means_the_same_model_is_not_kept_twice(asked: str, answered: str) -> None:
    native = Native(format="responses", model=answered, items=())
    assert asked_as(native, asked) is native
    assert not is_written_by(native, "")
