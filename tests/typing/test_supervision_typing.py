"""What a type checker says about programs that use `supervision`."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

pytest.importorskip("mypy.api")

SNIPPET = """
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pykka
import supervision as sup


@dataclass(frozen=True, slots=True)
class Get(sup.Ask[int]):
    pass


class Plain(sup.Actor):
    def on_start(self) -> None:
        self.n = 0

    def on_receive(self, message: Any) -> int:
        return self.n

    def on_stop(self) -> None: ...


class Coroutines(sup.Actor):
    async def on_start(self) -> None:
        self.timer = self.send_after(self.actor_ref, Get(), 1.0)

    async def on_receive(self, message: Any) -> int:
        n = await sup.ask(self.actor_ref, Get())
        reveal_type(n)
        return n

    async def on_stop(self) -> None:
        self.timer.cancel()

    async def on_failure(self, *args: Any) -> None: ...

    async def recover(self) -> None: ...


class Threaded(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> str:
        return "yes"


def main() -> None:
    with sup.System("typed") as system:
        handle = system.supervise(
            sup.ChildSpec("a", Plain), sup.ChildSpec("b", Coroutines), sup.ChildSpec("c", Threaded)
        )
        reveal_type(handle)
        Plain.start().tell(Get())
        Plain().no_such_method()
"""


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> str:
    from mypy import api

    folder = tmp_path_factory.mktemp("typing")
    file = folder / "snippet.py"
    file.write_text(textwrap.dedent(SNIPPET))
    root = Path(__file__).resolve().parent.parent.parent
    cache = root / ".mypy_cache"  # the one of the everyday check, so that only the snippet is new
    options = ["--strict", "--config-file", "", "--cache-dir", str(cache), "--no-error-summary"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(root))
        output, errors, _ = api.run([*options, str(file)])
    assert not errors
    return output


def test_hooks_and_handlers_may_be_plain_or_coroutines(verdict: str) -> None:
    complaints = [line for line in verdict.splitlines() if "error:" in line]
    assert len(complaints) == 1, verdict


def test_an_unknown_attribute_of_an_actor_is_still_an_error(verdict: str) -> None:
    assert '"Plain" has no attribute "no_such_method"' in verdict


def test_the_reply_to_an_ask_is_inferred(verdict: str) -> None:
    assert 'Revealed type is "int"' in verdict.replace("builtins.", "")


def test_supervise_gives_a_handle(verdict: str) -> None:
    assert "SupervisorHandle" in verdict
