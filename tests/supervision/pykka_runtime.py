"""Stands in Pykka's own test suite for its runtime: `test_pykka_suite` puts it there, and into the conftest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest

import supervision
from supervision.future import AskFuture


@pytest.fixture(scope="session", params=["supervision"])
def runtime(request: pytest.FixtureRequest) -> Any:
    """Pykka's fixture of this name, with our actor and our future."""
    from tests.types import Runtime  # Pykka's, not ours  # type: ignore[import-not-found]

    return Runtime(
        name=request.param,
        actor_class=supervision.Actor,
        event_class=threading.Event,
        future_class=AskFuture,
        sleep_func=time.sleep,
    )


class Mocker:
    """What Pykka's tests use of the plugin pytest-mock."""

    Mock, MagicMock, NonCallableMock = mock.Mock, mock.MagicMock, mock.NonCallableMock

    def __init__(self, patches: ExitStack) -> None:
        self._patches = patches

    @property
    def patch(self) -> Mocker:
        return self

    def object(self, *arguments: Any, **options: Any) -> Any:
        return self._patches.enter_context(mock.patch.object(*arguments, **options))


@pytest.fixture
def mocker() -> Iterator[Mocker]:
    with ExitStack() as patches:
        yield Mocker(patches)
