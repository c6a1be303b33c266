"""Providers that others write: whatever their callbacks do, an answer that was paid for is not lost."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Any

import pytest
from tests_system_rig import REQUEST, StartDuck

from rubberduck import Choice, Chunk, Delta, Message, Response, RubberDuck, Usage
from rubberduck.actors import circuit_breaker
from rubberduck.errors import CircuitOpen, ConfigError, InvalidRequest, NoAvailableProvider
from rubberduck.providers.base import Provider
from rubberduck.types import FinishReason


class Honest(Provider):
    """Answers at once; the others here differ from it in one callback each."""

    price: Any = None

    @classmethod
    def init(cls, config: Any) -> Any:
        provider = cls()
        provider.price = config.options.get("price")
        return provider

    async def complete(self, request: Any) -> Response:
        choice = Choice(0, Message(role="assistant", content="paid for"), FinishReason.STOP)
        return Response("1", request.model, (choice,), Usage(3, 2))

    async def stream(self, request: Any) -> Any:
        yield Chunk(delta=Delta(content="paid for"))
        yield Chunk(finish_reason=FinishReason.STOP, usage=Usage(3, 2))

    def supports_model(self, model: str) -> bool:
        return True

    def estimate_cost(self, usage: Usage, model: str) -> Any:
        if isinstance(self.price, str):
            raise RuntimeError(self.price)
        return self.price


class Forgetful(Honest):
    @classmethod
    def init(cls, config: Any) -> Any:
        return None


class Undecided(Honest):
    def supports_model(self, model: str) -> bool:
        raise ValueError("no idea")


def start(start_duck: StartDuck, module: type[Provider], price: Any = None, **sections: Any) -> RubberDuck:
    return start_duck({"theirs": {"module": module, "options": {"price": price}}}, **sections)


@pytest.mark.parametrize("price", ["the price list is down", float("nan"), -1, "inf", object()])
def test_a_price_that_cannot_be_told_costs_neither_the_answer_nor_the_slot(
    start_duck: StartDuck, price: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A paid success once became an error, and its slot was lost, because bookkeeping failed."""
    duck = start(start_duck, Honest, price, rate_limits={"theirs": {"max_concurrency": 1}})
    with caplog.at_level(logging.WARNING, "rubberduck"):
        answers = [duck.complete(REQUEST) for _ in range(3)]
    assert [(answer.text, answer.usage.cost) for answer in answers] == [("paid for", None)] * 3
    assert duck.costs().unknown == 3
    assert len([record for record in caplog.records if "its price is unknown" in record.message]) == 1


@pytest.mark.parametrize("price", [0.25, Decimal("0.25")])
def test_a_price_may_be_a_number_of_any_kind(start_duck: StartDuck, price: Any) -> None:
    duck = start(start_duck, Honest, price)
    assert duck.complete(REQUEST).usage.cost == duck.costs().cost == Decimal("0.25")


def test_a_provider_that_fails_over_the_question_of_a_model_does_not_serve_it(start_duck: StartDuck) -> None:
    duck = start(start_duck, Undecided)
    with pytest.raises(NoAvailableProvider, match="does not support the model 'any'"):
        duck.complete(REQUEST)


def test_a_class_whose_init_gives_nothing_is_a_fault_of_the_configuration(start_duck: StartDuck) -> None:
    with pytest.raises(ConfigError, match=r"providers\.theirs: init of .*gave None, which is no provider"):
        start(start_duck, Forgetful)


def test_the_only_route_with_an_open_circuit_is_refused_by_that_name(start_duck: StartDuck) -> None:
    duck = start(start_duck, Honest)
    breaker = duck.actor("circuit_breaker:theirs")
    breaker.ask(circuit_breaker.ForceOpen())
    with pytest.raises(CircuitOpen, match="the circuit breaker of theirs/any is forced_open") as caught:
        duck.complete(REQUEST)
    assert caught.value.reasons == {"theirs/any": "circuit forced_open"}
    assert duck.provider("theirs") is not None
    breaker.ask(circuit_breaker.Reset())
    assert duck.complete(REQUEST).text == "paid for"


def test_forced_open_holds_for_routes_called_later_and_after_a_crash(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, Honest)
    assert duck.complete({**REQUEST, "model": "first"}).text == "paid for"
    breaker = duck.actor("circuit_breaker:theirs")
    breaker.ask(circuit_breaker.ForceOpen())
    duck.system.kill(breaker)
    eventually(lambda: breaker.name.epoch == 2)
    for model in ("first", "second"):
        with pytest.raises(CircuitOpen):
            duck.complete({**REQUEST, "model": model})
    breaker.ask(circuit_breaker.Reset())
    assert duck.complete({**REQUEST, "model": "third"}).text == "paid for"


def test_a_duck_is_an_async_context_manager_too(tmp_path: Any) -> None:
    async def story() -> str:
        async with RubberDuck.start({"providers": {"mock": {}}, "ledger": {"path": ":memory:"}}) as duck:
            return (await duck.acomplete(REQUEST)).text

    assert asyncio.run(story()) == "You said: Hi"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"max_token": 5}, "max_token: unknown field; did you mean 'max_tokens'?"),
        ({"min_p": 5}, "min_p: unknown field; provider-specific parameters go into `extra`"),
        ({"messages": "hi"}, "messages: must be a list"),
        ({"messages": []}, "messages: must have at least one message"),
    ],
)
def test_a_wrong_field_is_told_in_the_words_of_the_request(wrong: dict[str, Any], told: str) -> None:
    from rubberduck import Request

    with pytest.raises(InvalidRequest) as caught:
        Request.parse({**REQUEST, **wrong})
    assert told in str(caught.value)


def test_a_wrong_message_is_told_once_and_not_as_a_missing_list() -> None:
    from rubberduck import Request

    with pytest.raises(InvalidRequest) as caught:
        Request.parse({"model": "m", "messages": [{"role": "wizard", "content": "hi"}]})
    assert caught.value.field == "messages.0.role"
    assert "at least" not in str(caught.value)
