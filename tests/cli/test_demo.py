"""What the demonstration calls a success, so that it cannot pass by not looking."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from rubberduck.cli.demo_play import bill, wrong_answers, wrong_books
from rubberduck.core.ledger import AttemptRecord, summarise
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


AT = datetime(2026, 1, 2, tzinfo=UTC)
INTENT = AttemptRecord("1", "1", "alpha", "duck-1", AT)


def test_ledger_that_equals_the_log_is_right() -> None:
    books = summarise([INTENT.settled(USED, Decimal("0.0045"), at=AT)])
    assert wrong_books(books, {"alpha": [call("a")], "beta": []}) == []


def test_ledger_that_lacks_or_invents_an_attempt_is_found() -> None:
    books = summarise([INTENT.settled(USED, Decimal("0.0045"), at=AT)])
    assert len(wrong_books(books, {"alpha": [], "beta": [call("a")]})) == 2


def test_ledger_that_is_a_millionth_off_is_found() -> None:
    books = summarise([INTENT.settled(USED, Decimal("0.004501"), at=AT)])
    assert len(wrong_books(books, {"alpha": [call("a")]})) == 1


def test_attempt_that_nobody_knows_the_cost_of_is_found() -> None:
    assert wrong_books(summarise([INTENT.uncertain(at=AT)]), {"alpha": []})
