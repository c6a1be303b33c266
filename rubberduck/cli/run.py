"""Runs a command and turns whatever it ends with into an exit code and words."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click

from rubberduck.cli import exit_codes
from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import app


def run(arguments: Sequence[str] | None = None, surroundings: Surroundings | None = None) -> int:
    """The exit code of one command. Prints errors; raises nothing."""
    around = surroundings or Surroundings()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app.main(
            words,
            prog_name="rubberduck",
            standalone_mode=False,
            obj=around,
            color=False if around.environ.get("NO_COLOR") else None,
        )
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        return _reader_went_away()
    except Exception as error:  # noqa: BLE001 - the outermost line: every failure becomes words and a code
        return _told(error, around.verbose)
    return code if isinstance(code, int) else exit_codes.OK


def _told(error: Exception, verbose: bool) -> int:
    from rubberduck.cli import failure  # knows every error there is, which a command that works does not need

    if verbose:
        traceback.print_exception(error)
    click.echo(failure.text(error, verbose=verbose), err=True)
    return exit_codes.code_for(error)


def _reader_went_away() -> int:
    """`rubberduck ... | head` is no failure worth words; stdout is turned off so that the exit stays silent too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exit_codes.FAILURE
