"""Imports go one way: each part knows those below it and none above.

ARROWS is the map of the whole project, LAYERS that of what lies within `supervision`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

STDLIB = frozenset(sys.stdlib_module_names)
FOUNDATION = frozenset(
    {"rubberduck.types", "rubberduck.errors", "rubberduck.events", "rubberduck.stream", "rubberduck.wakers"}
)
BELOW_PROVIDERS = FOUNDATION | {
    "rubberduck.core",
    "rubberduck.config",
    "rubberduck.prices",
    "rubberduck.structured",
    "rubberduck.telemetry",
    "rubberduck.tokens",
    "rubberduck.transport",
}
BELOW_ACTORS = BELOW_PROVIDERS | {"rubberduck.providers", "rubberduck.storage", "supervision"}
BELOW_RUNTIME = BELOW_ACTORS | {"rubberduck.actors"}
BELOW_EDGES = BELOW_RUNTIME | {"rubberduck.wiring", "rubberduck.runtime", "rubberduck"}

# What each part may import of this project. Below `supervision` and `core` even other people's packages are listed.
ARROWS: dict[str, frozenset[str]] = {
    "supervision": frozenset({"pykka"}),
    "rubberduck.core": frozenset({"rubberduck.errors"}),
    "rubberduck.errors": frozenset(),
    "rubberduck.types": frozenset({"rubberduck.errors"}),
    "rubberduck.events": frozenset({"rubberduck.types", "rubberduck.errors"}),
    "rubberduck.wakers": frozenset(),
    "rubberduck.stream": frozenset({"rubberduck.types", "rubberduck.errors", "rubberduck.core", "rubberduck.wakers"}),
    "rubberduck.transport": FOUNDATION | {"rubberduck.core"},
    "rubberduck.tokens": FOUNDATION | {"rubberduck.core", "rubberduck.request_tokens"},
    "rubberduck.request_tokens": FOUNDATION | {"rubberduck.core", "rubberduck.tokens"},
    "rubberduck.prices": FOUNDATION | {"rubberduck.core", "rubberduck.price_list"},
    "rubberduck.price_list": FOUNDATION | {"rubberduck.core"},
    "rubberduck.structured": FOUNDATION | {"rubberduck.core"},
    "rubberduck.config": FOUNDATION | {"rubberduck.core"},
    "rubberduck.telemetry": FOUNDATION | {"rubberduck.core", "rubberduck.config"},
    "rubberduck.providers": BELOW_PROVIDERS | {"supervision"},  # the local model's process is an actor's
    "rubberduck.storage": FOUNDATION | {"rubberduck.core", "rubberduck.config", "rubberduck.telemetry"},
    "rubberduck.actors": BELOW_ACTORS,
    "rubberduck.wiring": BELOW_RUNTIME,
    "rubberduck.runtime": BELOW_RUNTIME | {"rubberduck.wiring"},
    "rubberduck.testing": BELOW_EDGES,
    "rubberduck.gateway": BELOW_EDGES,
    "rubberduck.dashboard": BELOW_EDGES | {"rubberduck.gateway"},
    "rubberduck.cli": BELOW_EDGES | {"rubberduck.gateway", "rubberduck.dashboard", "rubberduck.testing"},
    "rubberduck._guard": frozenset(),
    "rubberduck.__main__": frozenset({"rubberduck.cli"}),
    "rubberduck": BELOW_EDGES - {"rubberduck"} | {"rubberduck._guard"},
}
KNOWS_ONLY_WHAT_IS_LISTED = ("supervision", "rubberduck.core", "rubberduck._guard", "rubberduck.errors")
OPTIONAL = {("supervision.testing.engine_machine", "hypothesis")}  # a part of the test kit that only some users load

# `supervision` from the ground up: a module, or a folder as one, loads only what stands in a line above its own. What
# only type checkers see, and what a function imports when it is called, is free: objects may well know each other.
LAYERS: tuple[str, ...] = (
    "exits context proxy pykka_registry seams",
    "errors",
    "hosting.doorbell hosting.driving hosting.event_loop hosting.loop_timer",
    "hosting.scheduler specs timers waiting",
    "engine",
    "construction faults future message hosting.schedulers",
    "clock locks mailbox state",
    "name work",
    "incarnation monitors",
    "links hosting.hosts",
    "standalone task_future",
    "actor",
    "kinds",
    "view",
    "child_owner testing names stopping stuck running registry",
    "shell",
    "supervisor",
    "dynamic partition root",
    "system task_actor",
    "task_calls",
    "tasks",
    "__init__ __main__",
)
PURE = {"supervision.specs": ("errors", "exits"), "supervision.engine": ("errors", "exits", "specs")}
"""These decide and describe, so they know no thread, no clock and nobody who does: only this of `supervision`."""
DOING = frozenset({"asyncio", "concurrent", "logging", "random", "socket", "subprocess", "threading", "time"})

HTTP = frozenset({"httpx", "httpx2", "httpx_aiohttp", "aiohttp", "requests", "urllib3"})


@dataclass(frozen=True, slots=True)
class Import:
    """One import of a module: where it stands, what it names, and whether only type checkers or calls come to it."""

    importer: str
    target: str
    line: int
    for_types_only: bool
    is_late: bool = False

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    importer = module_name(path, root)
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    hidden = within(tree, is_for_type_checkers)
    late = within(tree, lambda node: isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    for node in ast.walk(tree):
        for target in targets(node, importer, is_package=path.name == "__init__.py"):
            line = node.lineno  # type: ignore[attr-defined]
            yield Import(importer, target, line, id(node) in hidden, id(node) in late)


def within(tree: ast.AST, is_block: Callable[[ast.AST], bool]) -> set[int]:
    return {id(node) for block in ast.walk(tree) if is_block(block) for node in ast.walk(block)}


def is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def targets(node: ast.AST, importer: str, *, is_package: bool) -> list[str]:
    """Full names; of `from a import b` it is `a.b`, since b may be a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = importer.split(".")
        above = parts[: len(parts) - node.level + is_package]
        base = ".".join([*above, *([node.module] if node.module else [])])
    return [f"{base}.{alias.name}" for alias in node.names]


def part_of(name: str) -> str:
    """The part of the map a module or a name in it belongs to; the package itself for the rest of `rubberduck`."""
    if name.split(".")[0] == "supervision":
        return "supervision"
    first_two = ".".join(name.split(".")[:2])
    for part in (first_two, first_two.partition("_")[0]):  # transport_carriers is a file of the part transport
        if part in ARROWS:
            return part
    return name.split(".")[0]


def wrong_arrows(found: list[Import]) -> list[str]:
    return [str(arrow) for arrow in found if not is_allowed(arrow)]


def is_allowed(arrow: Import) -> bool:
    here, there = part_of(arrow.importer), part_of(arrow.target)
    if (arrow.importer, there) in OPTIONAL:
        return True
    if there == here or there in STDLIB:
        return True
    if there not in ARROWS:
        return here not in KNOWS_ONLY_WHAT_IS_LISTED or there in ARROWS[here]
    only_names = arrow.for_types_only and there in ("rubberduck.types", "rubberduck.errors")
    return there in ARROWS[here] or (only_names and here != "supervision")


LEVELS = {f"supervision.{module}": level for level, line in enumerate(LAYERS) for module in line.split()}


def layered(name: str) -> str | None:
    """The entry of LAYERS that a module of `supervision`, or a name in one, belongs to."""
    if name == "supervision":
        return "supervision.__init__"
    parts = name.split(".")
    return next((known for end in (3, 2) if (known := ".".join(parts[:end])) in LEVELS), None)


def steps_up(found: list[Import]) -> list[str]:
    return [str(arrow) for arrow in found if arrow.importer.split(".")[0] == "supervision" and goes_up(arrow)]


def goes_up(arrow: Import) -> bool:
    here, there = layered(arrow.importer), layered(arrow.target)
    if here is None:
        return True
    if arrow.target.split(".")[0] != "supervision":
        return here in PURE and arrow.target.split(".")[0] in DOING
    if there == here or arrow.for_types_only or arrow.is_late:
        return False
    if there is None or LEVELS[there] >= LEVELS[here]:
        return True
    return here in PURE and there.partition(".")[2] not in PURE[here]


@pytest.fixture(scope="module")
def all_imports() -> list[Import]:
    files = [path for package in ("supervision", "rubberduck") for path in (ROOT / package).rglob("*.py")]
    return [found for path in files for found in imports_of(path, ROOT)]


def test_no_import_points_up(all_imports: list[Import]) -> None:
    assert wrong_arrows(all_imports) == []


def test_within_supervision_no_import_points_up(all_imports: list[Import]) -> None:
    assert steps_up(all_imports) == []


def test_every_module_of_supervision_has_its_layer(all_imports: list[Import]) -> None:
    strangers = {arrow.importer for arrow in all_imports if arrow.importer.split(".")[0] == "supervision"}
    assert {name for name in strangers if layered(name) is None} == set(), "say in LAYERS what it stands upon"


def test_every_part_is_on_the_map(all_imports: list[Import]) -> None:
    strangers = {arrow.importer for arrow in all_imports if part_of(arrow.importer) == "rubberduck"} - {"rubberduck"}
    assert strangers == set(), "say in ARROWS what this part may import"


def test_http_exists_in_the_transport_only(all_imports: list[Import]) -> None:
    assert [
        str(arrow)
        for arrow in all_imports
        if arrow.target.split(".")[0] in HTTP and part_of(arrow.importer) != "rubberduck.transport"
    ] == []


# --- the test can fail


def written(tmp_path: Path, module: str, text: str) -> list[Import]:
    path = tmp_path / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return list(imports_of(path, tmp_path))


def story(tmp_path: Path, module: str, text: str) -> list[str]:
    return wrong_arrows(written(tmp_path, module, text))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("supervision/actor.py", "import rubberduck"),
        ("supervision/actor.py", "from rubberduck.errors import RubberDuckError"),
        ("supervision/actor.py", "import httpx"),
        ("rubberduck/core/x.py", "import pydantic"),
        ("rubberduck/core/x.py", "def later():\n    from rubberduck.types import Usage"),
        ("rubberduck/core/x.py", "from ..actors import service"),
        ("rubberduck/core/x.py", "from rubberduck import transport"),
        ("rubberduck/core/__init__.py", "from ..types import Usage"),
        ("rubberduck/providers/openai/provider.py", "from rubberduck.actors.service import ServiceActor"),
        ("rubberduck/actors/service.py", "import rubberduck.runtime"),
        ("rubberduck/runtime.py", "from rubberduck import cli"),
        ("rubberduck/errors.py", "from rubberduck.types import Usage"),
    ],
)
def test_an_arrow_that_points_up_is_found(tmp_path: Path, module: str, text: str) -> None:
    assert len(story(tmp_path, module, text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("supervision/actor.py", "import pykka, asyncio, collections.abc"),
        ("supervision/actor.py", "from supervision.mailbox import Mailbox\nfrom . import message"),
        (
            "rubberduck/core/x.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rubberduck.types import Usage",
        ),
        ("rubberduck/core/x.py", "from rubberduck.core import bucket\nfrom .bucket import Bucket"),
        ("rubberduck/providers/openai/provider.py", "import pydantic\nfrom rubberduck.transport import Transport"),
        ("rubberduck/cli/main.py", "from rubberduck import RubberDuck\nimport click"),
    ],
)
def test_an_arrow_that_points_down_or_aside_is_free(tmp_path: Path, module: str, text: str) -> None:
    assert story(tmp_path, module, text) == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("supervision/engine/engine.py", "from supervision.clock import Clock"),
        ("supervision/engine/engine.py", "from supervision.waiting import waits"),
        ("supervision/engine/engine.py", "import threading"),
        ("supervision/specs/child.py", "import time"),
        ("supervision/specs/child.py", "from supervision.engine.engine import Engine"),
        ("supervision/view/tree.py", "from supervision import shell"),
        ("supervision/view/tree.py", "from supervision.system import System"),
        ("supervision/state/keeping.py", "from supervision.incarnation import Incarnation"),
        ("supervision/hosting/scheduler.py", "from supervision.hosting.hosts import LoopIncarnation"),
        ("supervision/incarnation.py", "import supervision"),
        ("supervision/mailbox.py", "from supervision.name import Name"),
        ("supervision/nowhere.py", "import math"),
    ],
)
def test_an_upward_step_within_supervision_is_found(tmp_path: Path, module: str, text: str) -> None:
    assert len(steps_up(written(tmp_path, module, text))) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("supervision/engine/engine.py", "from supervision.engine.roster import Roster"),
        ("supervision/engine/engine.py", "from supervision.specs.child import ChildSpec\nimport math"),
        ("supervision/mailbox.py", "if TYPE_CHECKING:\n    from supervision.name import Name"),
        ("supervision/name.py", "def proxy():\n    from supervision.system import System"),
        ("supervision/hosting/hosts.py", "from supervision import faults"),
        ("supervision/system.py", "from supervision.view import tree"),
    ],
)
def test_a_downward_step_within_supervision_is_free(tmp_path: Path, module: str, text: str) -> None:
    assert steps_up(written(tmp_path, module, text)) == []
