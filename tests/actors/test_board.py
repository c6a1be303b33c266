"""What the board remembers of routes: no more than its cap, whatever names users make up; and with which options."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rubberduck.actors import board as boards
from rubberduck.actors.board import Board, ProviderDesk
from rubberduck.actors.calls.rules import Rules
from rubberduck.actors.calls.trace import Trace
from rubberduck.actors.calls.trace_log import TraceLog
from rubberduck.config import Config
from rubberduck.config.sections import HedgeConfig
from rubberduck.core.breaker import BreakerOptions
from rubberduck.core.hedge import HedgeOptions
from rubberduck.core.limiter import Amounts, Limiter, LimiterOptions
from rubberduck.core.retry import RetryBudget, RetryOptions
from rubberduck.prices import PriceBook
from rubberduck.wiring import desk_of, provider_of

FLOOD = 20_000


def desk() -> ProviderDesk:
    config = Config.load({"providers": {"mock": {"module": "mock"}}}, environ={})
    return desk_of(provider_of(config.providers["mock"], None), config)


def test_without_any_option_each_part_has_the_defaults_of_its_own() -> None:
    """The tables of options stand twice, in the configuration and beside the decisions, and must say the same."""
    config, known = Config.load({"providers": {"mock": {"module": "mock"}}}, environ={}), desk()
    assert known.breaker_options == replace(BreakerOptions(), permit_ttl=config.timeout + 5)
    assert known.limiter_options == replace(LimiterOptions(), reservation_ttl=config.timeout + 5)
    assert Rules.of(config).retry == RetryOptions()
    budget = RetryBudget(*known.retry_budget)
    assert (budget.ratio, budget.floor) == (RetryBudget().ratio, RetryBudget().floor) == (0.2, 3.0)
    hedge, choice = HedgeConfig(), config.choice
    assert HedgeOptions(hedge.share, hedge.least_delay) == HedgeOptions() == HedgeOptions(0.05, 1.0)
    assert (choice.price_weight, choice.sticky, choice.sticky_for, choice.panic) == (0, "session", 300, "fail_fast")


def look(board: Board, model: str) -> None:
    known = board.desks["mock"]
    board.candidate(board.routes(f"mock/{model}")[0], Amounts(), "normal", 0.0)
    known.output_of(model).learn(1, 2)
    known.concurrency_of(model)


TABLES: list[Callable[[ProviderDesk], Any]] = [
    lambda known: known.stats,
    lambda known: known.typical,
    lambda known: known.budgets,
    lambda known: known.outputs,
    lambda known: known.concurrencies,
]


def test_names_that_users_make_up_fill_no_table_of_a_provider() -> None:
    known = desk()
    known.limiters[0] = Limiter(known.limiter_options, 0.0)
    board = Board({"mock": known}, {}, random.Random(1))
    for number in range(FLOOD):
        look(board, f"m{number}")
        if number % 1000 == 0:
            assert all(0 < len(table(known)) <= boards.REMEMBERED for table in TABLES)
    assert all(0 < len(table(known)) <= boards.REMEMBERED for table in TABLES)


def test_nor_the_boards_own_nor_that_of_prices_nor_that_of_traces() -> None:
    board, prices, log = Board({"mock": desk()}, {}, random.Random(1)), PriceBook(), TraceLog()
    for number in range(FLOOD):
        board.routes(f"mock/m{number}")
        prices.price("mock", f"m{number}")
        log.keep(Trace(str(number), "m", "normal", "", 0.0, 0.0, 0.0, "success", 0.0, 0, (), (), None))
    tables = [board._known, prices._known, log._traces]
    assert [len(table) <= 10_000 for table in tables] == [True] * 3
    assert len(log._traces) == 1000
    with pytest.raises(KeyError):
        log.find("0")
