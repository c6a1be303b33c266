"""Finds the configuration file where none was named."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath

from rubberduck.config.problems import Problem, error_for

FILE_NAMES = ("rubberduck.yaml", "rubberduck.yml", "rubberduck.toml")


def find_config(
    named: str | FilePath | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: FilePath | None = None,
    as_root: bool | None = None,
) -> FilePath | None:
    """The configuration file to use, or None where there is none.

    In order: the one `named`, `$RUBBERDUCK_CONFIG`, the working directory, `$XDG_CONFIG_HOME/rubberduck`.
    A file that is named is returned whether it exists or not, so that reading it tells. Root is not given the
    working directory, which may be anybody's.

    Raises:
        ConfigError: a directory holds two configurations, and it is not clear which is meant.
    """
    environ = os.environ if environ is None else environ
    if chosen := named or environ.get("RUBBERDUCK_CONFIG"):
        return FilePath(chosen)
    places = [] if _is_root(as_root) else [FilePath() if directory is None else directory]
    if home := _config_home(environ):
        places.append(home / "rubberduck")
    return next((file for place in places if (file := _only_file(place))), None)


def searched(as_root: bool | None = None) -> str:
    """Where `find_config` looks for a file that nobody named, in words."""
    if _is_root(as_root):
        return "in $XDG_CONFIG_HOME/rubberduck only: to root, a file of the working directory has to be named"
    return "here and in $XDG_CONFIG_HOME/rubberduck"


def _is_root(told: bool | None) -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0 if told is None else told


def _config_home(environ: Mapping[str, str]) -> FilePath | None:
    # A relative XDG_CONFIG_HOME is to be ignored (XDG Base Directory Specification 0.8).
    if (given := environ.get("XDG_CONFIG_HOME")) and FilePath(given).is_absolute():
        return FilePath(given)
    home = environ.get("HOME")
    return FilePath(home) / ".config" if home else None


def _only_file(directory: FilePath) -> FilePath | None:
    found = [directory / name for name in FILE_NAMES if (directory / name).exists()]
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise error_for([Problem(str(directory), (), f"has {names}; keep one, or name the one to use")])
    return found[0] if found else None
