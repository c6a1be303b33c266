"""Every block of the README does what it says: programs run, configurations load, commands and names exist."""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml
from pydantic import BaseModel

import supervision.__main__
from rubberduck import errors
from rubberduck.actors.service import SubmitJob
from rubberduck.cli.verbs import VERBS
from rubberduck.config import Config
from rubberduck.config.provider import NOT_WRITTEN
from rubberduck.errors import RubberDuckError
from rubberduck.providers.anthropic.provider import Anthropic
from rubberduck.providers.openai.provider import OpenAI
from rubberduck.telemetry import names
from rubberduck.testing import FaultServer, faults

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUIETED = ("httpx", "httpcore", "aiohttp", "asyncio", "urllib3")
KEYS = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-ant", "FIRST_KEY": "sk-1", "SECOND_KEY": "sk-2"}


@dataclass(frozen=True)
class Block:
    language: str
    line: int
    text: str


def blocks(markdown: str) -> Iterator[Block]:
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        yield Block(found[1], markdown[: found.start()].count("\n") + 2, found[2])


def blocks_of(language: str) -> list[Block]:
    return [block for block in blocks(README) if block.language == language]


def name_of(block: Block) -> str:
    return f"line_{block.line}"


def test_each_block_is_of_a_kind_that_is_checked() -> None:
    kinds = [block.language for block in blocks(README)]
    assert set(kinds) == {"python", "yaml", "sh", "text"}
    assert kinds.count("text") == 1  # the drawing of the tree, held against the tree below
    assert kinds.count("python") > 8


# --- programs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def vendors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both vendors, pretended by a server on this machine; what the program does to reach them is unchanged."""
    with FaultServer(faults.Ok("Quack.")) as server:
        monkeypatch.setattr(OpenAI, "default_base_url", f"{server.base_url}/v1")
        monkeypatch.setattr(Anthropic, "default_base_url", server.base_url)
        yield


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """A program may configure logging for its process; the next test is another program."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in QUIETED}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)


@pytest.mark.parametrize("block", blocks_of("python"), ids=name_of)
def test_a_program_runs_and_prints_what_its_comments_say(
    block: Block,
    vendors: None,
    logging_as_before: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    exec(compile("\n" * (block.line - 1) + block.text, "README.md", "exec"), {"__name__": "__main__"})
    said = capsys.readouterr().out
    assert said or "assert " in block.text
    for promised in re.findall(r"# -> (.+)$", block.text, re.MULTILINE):
        _, found, said = said.partition(promised)
        assert found, f"{promised!r} was not printed, or not in this order"


def test_the_example_of_an_own_provider_is_as_short_as_it_can_be() -> None:
    [block] = [each for each in blocks_of("python") if "(Provider):" in each.text]
    assert len(block.text.split("\n\n\nwith ")[0].splitlines()) <= 40


# --- configurations ----------------------------------------------------------------------------------------------


def load(block: Block, folder: Path, before: str = "") -> Config:
    file = folder / "rubberduck.yaml"
    file.write_text(before + block.text, encoding="utf-8")
    return Config.load(file, environ=KEYS)


def test_the_configuration_loads_and_means_what_is_said(tmp_path: Path) -> None:
    [block] = [each for each in blocks_of("yaml") if not each.text.startswith("# defaults")]
    config = load(block, tmp_path)
    assert config.providers["primary"].timeout == 30
    assert config.models["smart"][0] == "primary/gpt-4o"
    assert config.cache is not None
    assert config.cache.ttl == 300


def test_the_defaults_are_the_defaults(tmp_path: Path) -> None:
    [block] = [each for each in blocks_of("yaml") if each.text.startswith("# defaults")]
    told = load(block, tmp_path, "providers: {mock: {}}\n")
    assert told == Config.load({"providers": {"mock": {}}}, environ={})
    assert len(told.model_fields_set) == 10


def test_every_option_stands_in_the_configuration_once() -> None:
    """In one of the two blocks; what only some providers know, as `responses`, is told where they are."""
    written = [place for block in blocks_of("yaml") for place in places(yaml.safe_load(block.text))]
    of_some_providers = {"model_path", "responses", "options", *NOT_WRITTEN}
    options = set(option_places(Config)) - {("providers", "*", name) for name in of_some_providers}
    options = {place for place in options if place[2:3] != ("service_tiers",) or len(place) == 3}  # as other prices
    assert options - set(written) == set()
    assert [place for place in set(written) if written.count(place) > 1 and place[0] not in NAMED] == []


NAMED = ("providers", "models", "rate_limits", "prices", "budgets")
"""Sections whose first level are names of the user's."""


def places(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each option that is written; "*" for a name of the user's."""
    for name, value in tree.items():
        place = (*path, "*" if len(path) == 1 and path[0] in NAMED else name)
        yield place
        if isinstance(value, dict) and place[-1] != "tenants":
            yield from places(value, place)


def option_places(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*path, name)
        for part in parts_of(field.annotation):
            yield from option_places(part, (*path, name, "*") if name in NAMED and not path else (*path, name))


def parts_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections within an annotation: of itself, of one of several kinds, or of a mapping's values."""
    for part in [annotation, *typing.get_args(annotation)]:
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


def test_the_tree_is_drawn_as_it_is() -> None:
    from rubberduck import RubberDuck

    [drawing] = blocks_of("text")
    drawn = re.findall(r"^[│├└─ ]*([\w:<>]+)", drawing.text, re.MULTILINE)
    config = {"providers": {"mock": {}}, "ledger": {"path": ":memory:"}, "jobs": {"path": ":memory:"}}
    with RubberDuck.start(config) as duck:
        alive = re.findall(r"─ ([\w:]+)", str(duck.tree()))
    assert [name.replace("<name>", "mock") for name in drawn] == alive


# --- commands ----------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks_of("sh") for line in block.text.splitlines()]
    inline = re.findall(r"`((?:\./duck|PYTHONPATH=\. \.venv/bin/python) [a-z][^`]*)`", README)
    return [part.strip() for line in [*lines, *inline] for part in line.split("&&") if part.strip()]


def verbs_of_duck() -> set[str]:
    said = subprocess.run([sys.executable, ROOT / "duck.py"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  ([a-z]+)\b", said, re.MULTILINE))


def test_every_command_exists() -> None:
    known = verbs_of_duck() | set(VERBS)
    seen = set()
    for command in commands():
        match command.split():
            case ["./duck", verb, *rest]:
                assert verb in known, command
                seen.add(verb)
                if verb == "bench":
                    assert importlib.util.find_spec(f"benchmarks.{rest[0]}"), command
            case ["PYTHONPATH=.", ".venv/bin/python", program]:
                assert program == "your_program.py" or (ROOT / program).is_file(), command
            case ["git", "clone", *_] | ["cd", "rubberduck"]:
                pass
            case _:
                pytest.fail(f"nobody checks {command!r}")
    assert set(VERBS) <= seen, "a verb that the README does not tell of"


@pytest.mark.parametrize("command", [line for line in commands() if line.split()[1:2] and line.split()[1] in VERBS])
def test_every_option_of_a_command_exists(command: str) -> None:
    words = re.sub(r'"[^"]*"', "text", command).split()[1:]
    path = [word for word in words[:2] if not word.startswith("-")]
    path = path if path[0] in ("config", "ledger") else path[:1]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "rubberduck", *path, "--help"], env=environ, capture_output=True, text=True, check=True
    )
    lines = [line for block in blocks_of("sh") for line in block.text.splitlines() if command in line]
    told = {option for line in [command, *lines] for option in re.findall(r"--[a-z-]+", line)}
    assert [option for option in sorted(told) if option not in done.stdout] == []


@pytest.mark.parametrize("command", [line for line in commands() if "-m supervision" in line])
def test_every_way_to_look_at_a_tree_is_understood(command: str) -> None:
    """It is an empty folder where it looks, so that nobody is there: which is not that the command line is wrong."""
    words = [*command.partition("-m supervision ")[2].split(), "--directory", "/nowhere"]
    assert supervision.__main__.main(words) == supervision.__main__.NOBODY


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:rubberduck|supervision)(?:\.\w+)+)`", README))))
def test_every_name_exists(name: str) -> None:
    if re.search(r"\.(yaml|toml)$", name):
        return
    found = importlib.import_module(name.split(".", maxsplit=1)[0])
    for step, part in enumerate(name.split(".")[1:], 2):
        if not hasattr(found, part):
            importlib.import_module(".".join(name.split(".")[:step]))
        found = getattr(found, part)


@pytest.mark.parametrize("line", [line for line in README.splitlines() if "Actor`: `" in line])
def test_every_message_of_a_component_exists(line: str) -> None:
    module, messages = re.search(r"`(rubberduck\.actors\.\w+)\.\w+`: (.+) \|$", line).groups()  # type: ignore[union-attr]
    found = importlib.import_module(module)
    assert [name for name in re.findall(r"`(\w+)`", messages) if not hasattr(found, name)] == []


def option_names(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for part in [field.annotation, *typing.get_args(field.annotation)]:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from option_names(part)


def test_every_option_that_is_named_exists() -> None:
    named = set(re.findall(r"[`{]([a-z_]+): ", re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)))
    assert len(named) > 8
    assert named - set(option_names(Config)) == set()


def test_every_option_of_a_call_is_told_of() -> None:
    """The table of options: those of a durable job, which are those of every call and two more."""
    table = README.partition("| option | default | meaning |\n")[2].partition("\n\n")[0]
    first = [line.split("|")[1] for line in table.splitlines()[1:]]
    assert set(re.findall(r"`(\w+)`", " ".join(first))) == {field.name for field in fields(SubmitJob)} - {
        "request",
        "call_id",
    }


def test_every_error_is_told_of() -> None:
    known = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, RubberDuckError)]
    assert [each.__name__ for each in known if f"`rubberduck.errors.{each.__name__}`" not in README] == []


def test_every_event_is_told_of() -> None:
    known = [name for name, event in vars(names).items() if name.isupper() and isinstance(event[0], str)]
    assert len(known) > 15
    assert [name for name in known if not name.startswith("_") and f"`{name}`" not in README] == []


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"\b(?:examples|tests|benchmarks)/[\w/]*\.py", README))
    assert len(named) > 3
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_the_readme_names_its_version_of_the_exit_codes() -> None:
    from rubberduck.cli import exit_codes

    [told] = re.findall(r"Exit codes: (.+?)\.\n", README, re.DOTALL)
    known = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    assert {int(number) for number in re.findall(r"\b\d+\b", told)} == known
