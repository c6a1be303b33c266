"""`rubberduck demo`: an outage, played on three pretended providers, and the books checked at the end."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import click

from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import verbose_option


@click.command()
@click.option("--fast", is_flag=True, help="Play it on a virtual clock, in a few seconds.")
@click.option("--seed", type=int, default=1, show_default=True, help="Chooses the actor that is killed, and the talk.")
@verbose_option
@click.pass_obj
def demo(around: Surroundings, fast: bool, seed: int) -> int:
    """Watch an outage being survived: 503s, a killed actor, a rate limit, and the way back.

    Exit code 0 only if each question was answered once and the ledger equals the providers' own log.
    """
    from rubberduck.cli.demo_play import Play, configuration
    from rubberduck.cli.demo_time import RealTime, VirtualTime

    time: RealTime | VirtualTime = VirtualTime() if fast else RealTime()
    with tempfile.TemporaryDirectory(prefix="rubberduck-demo-") as folder:
        config = configuration(Path(folder) / "ledger.sqlite")
        options: dict[str, Any] = {"clock": time.clock} if isinstance(time, VirtualTime) else {}
        click.echo(f"Three pretended providers, one outage, seed {seed}{', on a virtual clock' if fast else ''}.")
        with around.start(config, **options) as duck:
            faults = Play(duck, time, random.Random(seed), _say).run()
    for fault in faults:
        click.secho(f"FAILED: {fault}", fg="red", bold=True)
    return 1 if faults else 0


def _say(at: float, kind: str, text: str) -> None:
    colour = {"act": "cyan", "good": "green", "bad": "red", "note": "yellow"}[kind]
    if kind == "act":
        click.secho(f"\n{at:5.1f} s  {text}", fg=colour, bold=True)
    else:
        click.echo(f"{at:5.1f} s    {click.style(text, fg=colour)}")
