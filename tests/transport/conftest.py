from __future__ import annotations

import asyncio
import inspect
import tracemalloc
from collections.abc import Callable, Iterator

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is a coroutine on a loop of its own, at most a minute, and fails it for tasks left over."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}

    async def story() -> None:
        async with asyncio.timeout(60):
            await pyfuncitem.obj(**arguments)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        # The loop itself closes generators that httpcore drops, in tasks that start whenever they are collected.
        if closing := {task for task in others if type(task.get_coro()).__name__ == "async_generator_athrow"}:
            await asyncio.wait(closing, timeout=30)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left over: {left}"

    asyncio.run(story())
    return True


@pytest.fixture
def time_passes() -> Callable[[float], None]:
    """`time_passes(seconds)`: so much later it is for the running loop, at once."""

    def put_forward(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time
        loop.time = lambda: before() + seconds  # type: ignore[method-assign]

    return put_forward


@pytest.fixture
def peak() -> Iterator[Callable[[], float]]:
    """The most memory that Python objects took so far in this test, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
