"""`rubberduck costs`: what was spent, by model."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import verbose_option
from rubberduck.core.ledger import Summary, period


@click.command()
@click.argument("timeframe", type=click.Choice(["all", "day", "hour"]), default="all")
@click.option("--ledger", "file", type=click.Path(path_type=Path), help="The ledger; else the configured one.")
@click.option("-c", "--config", "config_file", type=click.Path(), help="A configuration file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@verbose_option
@click.pass_obj
def costs(around: Surroundings, timeframe: str, file: Path | None, config_file: str | None, as_json: bool) -> None:
    """What was spent: in all, or in the present day or hour of UTC."""
    from rubberduck.cli.books import configured_ledger, opened

    with opened(file or configured_ledger(config_file, around.environ)) as books:
        summary = books.summary(*period(timeframe, datetime.now(UTC)))
    click.echo(json.dumps(plain(summary), indent=2) if as_json else str(summary))


def plain(summary: Summary) -> dict[str, Any]:
    """The summary as plain values; money as text, in USD."""
    return {
        "since": summary.since.isoformat() if summary.since else None,
        "until": summary.until.isoformat() if summary.until else None,
        "cost_usd": f"{summary.cost:f}",
        "tokens": summary.tokens,
        "unknown": summary.unknown,
        "uncertain_usd": f"{summary.uncertain:f}",
        "by_model": [
            {
                "provider": provider,
                "model": model,
                "calls": share.calls,
                "tokens": share.tokens,
                "cost_usd": f"{share.cost:f}",
            }
            for (provider, model), share in summary.by_model.items()
        ],
        "hourly": {hour.isoformat(): f"{cost:f}" for hour, cost in summary.hourly.items()},
        "daily": {day.isoformat(): f"{cost:f}" for day, cost in summary.daily.items()},
    }
