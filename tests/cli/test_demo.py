"""What the demonstration calls a success, so that it cannot pass by not looking."""

from __future__ import annotations

from decimal import Decimal

from rubberduck.cli.demo_play import bill, wrong_answers
from rubberduck.providers.mock import MockCall
from rubberduck.types import Request, Usage

USED = Usage(1000, 100)


def call(question: str, outcome: str = "success", usage: Usage | None = USED) -> MockCall:
    request = Request.parse({"model": "duck-1", "messages": [{"role": "user", "content": question}]})
    return MockCall(request, "duck-1", 0.0, usage, outcome)


def test_each_question_answered_once_is_right() -> None:
    assert wrong_answers(2, 2, [[call("a"), call("b", "Overloaded", None)], [call("b")]]) == []


def test_lost_answer_is_found() -> None:
    assert wrong_answers(2, 1, [[call("a")]]) == ["2 questions, 1 answers"]


def test_question_answered_twice_by_providers_is_found() -> None:
    assert "answered 2 times" in wrong_answers(1, 1, [[call("a")], [call("a")]])[0]


def test_answer_that_no_provider_gave_is_found() -> None:
    assert "providers answered 1 questions" in wrong_answers(2, 2, [[call("a")]])[0]


def test_bill_counts_what_the_log_owes() -> None:
    assert bill([call("a"), call("b", "Overloaded", None)]) == (1100, Decimal("0.0045"))
