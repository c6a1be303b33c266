"""The verbs, each in a module of its own that is imported when it is used."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import click

from rubberduck.cli.surroundings import Surroundings

VERBS = {
    "chat": "Ask a model; the answer is streamed.",
    "demo": "Watch an outage being survived: three pretended providers, 20 seconds.",
    "config": "Check or show the configuration.",
    "doctor": "See what is installed here, and what is missing.",
    "costs": "What was spent.",
    "ledger": "The record of every attempt.",
    "models": "The models that can be asked here.",
}


class Verbs(click.Group):
    """Finds a verb by its name, and imports its module only then."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = getattr(importlib.import_module(f"rubberduck.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if near := _nearest(args[0]):
                raise click.UsageError(f"{error.message} Did you mean `{near}`?", ctx) from None
            raise


def _nearest(word: str) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, VERBS, n=1)), None)


def version() -> str:
    """The version of what runs here: the package's own word, or its distribution's."""
    import rubberduck

    if isinstance(said := getattr(rubberduck, "__version__", None), str):
        return said
    from importlib import metadata

    try:
        return metadata.version("rubberduck-llm")
    except metadata.PackageNotFoundError:
        return _version_of_checkout(Path(rubberduck.__file__).parents[1] / "pyproject.toml")


def _version_of_checkout(project: Path) -> str:
    """A checkout runs without being installed, and then has no metadata but its project file."""
    try:
        found = re.search(r'^version = "([^"]+)"', project.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return "unknown"
    return f"{found[1]} (checkout)" if found else "unknown"


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"rubberduck {version()}")
        ctx.exit()


def _note_verbose(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        import logging

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        ctx.ensure_object(Surroundings).verbose = True


def verbose_option(command: Any) -> Any:
    """`--verbose`: log and tracebacks for who looks into a failure."""
    return click.option(
        "--verbose", is_flag=True, expose_value=False, callback=_note_verbose, help="Show the log and tracebacks."
    )(command)


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@verbose_option
def app() -> None:
    """RubberDuck stands between your program and the models it calls."""
