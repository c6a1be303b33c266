"""`rubberduck ledger export`: every attempt as one line, for other programs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import click

from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import verbose_option
from rubberduck.core.ledger import AttemptRecord

COLUMNS = (
    "attempt_id",
    "call_id",
    "state",
    "provider",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cost",
    "reserved",
    "started_at",
    "ended_at",
    "price_source",
    "tenant",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "prompt_audio_tokens",
    "completion_audio_tokens",
    "service_tier",
    "price_date",
)
"""New ones come last: who reads a file by the places of its columns goes on reading it."""


@click.group()
def ledger() -> None:
    """The record of every attempt: who was asked, what it consumed, what it cost."""


@ledger.command()
@click.option("--format", "shape", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--ledger", "file", type=click.Path(path_type=Path), help="The ledger; else the configured one.")
@click.option("-c", "--config", "config_file", type=click.Path(), help="A configuration file.")
@verbose_option
@click.pass_obj
def export(around: Surroundings, shape: str, file: Path | None, config_file: str | None) -> None:
    """Write one row per attempt to stdout, oldest first. Costs are USD; empty or null is unknown."""
    from rubberduck.cli.books import configured_ledger, opened

    with opened(file or configured_ledger(config_file, around.environ)) as books:
        write(books.rows(), shape, sys.stdout)


def write(records: Iterable[AttemptRecord], shape: str, out: TextIO) -> None:
    """The records as JSON lines or as CSV with a header."""
    if shape == "csv":
        table: csv.DictWriter[str] = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(row(record) for record in records)
        return
    out.writelines(json.dumps(row(record), ensure_ascii=False) + "\n" for record in records)


def row(record: AttemptRecord) -> dict[str, Any]:
    """One attempt as plain values; money as text, so that no digit is lost."""
    values = {name: getattr(record, name) for name in COLUMNS}
    values["state"] = record.state.value
    for name in ("cost", "reserved"):
        values[name] = None if values[name] is None else f"{values[name]:f}"
    for name in ("started_at", "ended_at"):
        values[name] = values[name].isoformat() if values[name] else None
    return values
