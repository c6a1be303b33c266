"""Errors as words and as exit codes."""

from __future__ import annotations

from decimal import Decimal

import pytest

from rubberduck import errors
from rubberduck.cli import failure
from rubberduck.cli.exit_codes import code_for
from rubberduck.types import Attempt


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 78),
        (errors.MissingApiKey("x"), 78),
        (errors.AuthenticationFailed("x"), 78),
        (errors.NoAvailableProvider("x"), 69),
        (errors.ServiceUnavailable("x"), 69),
        (errors.Overloaded("x"), 75),
        (errors.RateLimited("x"), 75),
        (errors.QueueFull("x"), 75),
        (errors.CircuitOpen("x"), 75),
        (errors.ProviderTimeout("x"), 75),
        (errors.DeadlineExceeded("x"), 75),
        (errors.StreamInterrupted("x"), 75),
        (errors.CallInterrupted("x"), 70),
        (errors.Cancelled("x"), 130),
        (KeyboardInterrupt(), 130),
        (errors.QuotaExceeded("x"), 1),
        (errors.InvalidRequest("x"), 1),
        (ValueError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert code_for(error) == code


def test_error_says_what_happened_what_was_tried_what_to_do_and_its_id() -> None:
    error = errors.NoAvailableProvider(
        "nobody could answer",
        reasons={"openai/gpt": "circuit open", "local/smollm2": "does not fit"},
        attempts=(Attempt("openai", "gpt", "Overloaded", 0.0, 0.25),),
        request_id="req-1",
    )
    assert failure.text(error).splitlines() == [
        "error: nobody could answer",
        "  openai/gpt: circuit open",
        "  local/smollm2: does not fit",
        "tried: openai/gpt: Overloaded after 0.25 s",
        "to do: see `rubberduck doctor`, or name a provider with --provider",
        "request id: req-1",
    ]


def test_time_to_wait_is_the_advice_where_it_is_known() -> None:
    assert "to do: try again in 12 s" in failure.text(errors.RateLimited("slow down", retry_after=12.0))


def test_every_problem_of_a_configuration_is_listed() -> None:
    error = errors.ConfigError("2 faults", problems=("a.yaml:1: one", "a.yaml:2: two"))
    assert failure.text(error).splitlines()[1:] == ["  a.yaml:1: one", "  a.yaml:2: two"]


@pytest.mark.parametrize(
    ("spent", "told"), [(Decimal(0), None), (None, "may have been charged"), (Decimal("0.02"), "up to $0.02")]
)
def test_money_that_may_be_gone_is_told(spent: Decimal | None, told: str | None) -> None:
    text = failure.text(errors.ServiceUnavailable("lost", spent=spent))
    assert told in text if told else "cost" not in text


def test_missing_key_names_the_variable() -> None:
    assert "set OPENAI_API_KEY" in failure.text(errors.MissingApiKey("no key", variable="OPENAI_API_KEY"))
