"""Finds the ledger that a command is about, without starting anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rubberduck.errors import ConfigError

if TYPE_CHECKING:
    from rubberduck.storage.sqlite import SqliteLedger

FILE_NAME = "ledger.sqlite"


def ledger_path(config: Any, environ: Mapping[str, str]) -> Path:
    """The configured file, or the default: $XDG_STATE_HOME/rubberduck/ledger.sqlite."""
    if config is not None and config.ledger.path:
        return Path(config.ledger.path).expanduser()
    state = environ.get("XDG_STATE_HOME", "")
    home = Path(state) if Path(state).is_absolute() else Path(environ.get("HOME", "~")).expanduser() / ".local/state"
    return home / "rubberduck" / FILE_NAME


def configured_ledger(config_file: str | None, environ: Mapping[str, str]) -> Path:
    """The ledger of the configuration that is found or named."""
    from rubberduck.config import Config, find_config

    file = find_config(config_file, environ=environ)
    config = None if file is None else Config.load(file, environ=environ)
    return ledger_path(config, environ)


@contextmanager
def opened(path: Path) -> Iterator[SqliteLedger]:
    """The ledger at `path`; a file that is not there is an error, not an empty ledger."""
    if not path.is_file():
        raise ConfigError(f"there is no ledger at {path}: nothing was asked yet, or it is elsewhere (--ledger FILE)")
    from rubberduck.storage.sqlite import SqliteLedger

    ledger = SqliteLedger(path)
    try:
        yield ledger
    finally:
        ledger.close()
