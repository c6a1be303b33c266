"""`rubberduck config check|show|schema`: is the configuration right, what does it come to, what may be in it?"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click

from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import verbose_option

HIDDEN = "***"
_SECRET_NAME = re.compile(r"key|token(?!s)|secret|password|credential|authorization|cookie", re.IGNORECASE)


@click.group()
def config() -> None:
    """Check, show or describe the configuration."""


@config.command()
@click.argument("file", required=False, type=click.Path())
@verbose_option
@click.pass_obj
def check(around: Surroundings, file: str | None) -> None:
    """Tell every fault of the configuration, each with its place. Exit code 78 if there are any."""
    from rubberduck.config import searched

    path, loaded = _loaded(around, file)
    names = ", ".join(loaded.providers)
    place = path or f"no configuration file (looked {searched()}); the default"
    click.echo(f"{place}: ok: providers {names}; {len(loaded.models)} model names")


@config.command()
@click.argument("file", required=False, type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
@verbose_option
@click.pass_obj
def show(around: Surroundings, file: str | None, as_json: bool) -> None:
    """Show the configuration as it is understood, defaults included, secrets left out."""
    _, loaded = _loaded(around, file)
    tree = redacted(loaded.model_dump(mode="json"), {secret.get_secret_value() for secret in loaded.secrets()})
    if as_json:
        click.echo(json.dumps(tree, ensure_ascii=False, indent=2))
        return
    import yaml

    click.echo(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), nl=False)


@config.command()
@verbose_option
@click.pass_obj
def schema(around: Surroundings) -> None:
    """Print the JSON Schema of a configuration file, by which an editor completes and checks it."""
    from rubberduck.config import schema as described

    click.echo(json.dumps(described(), ensure_ascii=False, indent=2))


def _loaded(around: Surroundings, file: str | None) -> tuple[Path | None, Any]:
    from rubberduck.config import Config, find_config

    path = find_config(file, environ=around.environ)
    return path, Config.load(path, environ=around.environ)


def redacted(value: Any, secrets: set[str], name: str = "") -> Any:
    """A copy without secrets: neither under a name that promises one, nor a known one anywhere in a text."""
    if isinstance(value, dict):
        return {key: redacted(item, secrets, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item, secrets, name) for item in value]
    if isinstance(value, str) and value:
        return HIDDEN if _SECRET_NAME.search(name) else _without(value, secrets)
    return value


def _without(text: str, secrets: set[str]) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, HIDDEN)
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return HIDDEN
    _, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{HIDDEN}@{host}")) if at else text
