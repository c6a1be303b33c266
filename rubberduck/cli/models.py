"""`rubberduck models`: whom one can ask here, and at what price."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import verbose_option

if TYPE_CHECKING:
    from rubberduck.prices import PriceBook


@dataclass(frozen=True, slots=True)
class Offer:
    """One model that can be named: its route, its price (USD per million tokens), what to know before asking it.

    `output` alone is None for who writes no text, such as a model of vectors.
    """

    name: str
    input: str | None
    output: str | None
    note: str


@click.command()
@click.option("-c", "--config", "config_file", type=click.Path(), help="A configuration file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@verbose_option
@click.pass_obj
def models(around: Surroundings, config_file: str | None, as_json: bool) -> None:
    """The models that can be asked here. Others of a vendor can be named too: --model openai/NAME."""
    from rubberduck.config import Config, find_config

    file = find_config(config_file, environ=around.environ)
    found = list(_configured(Config.load(file, environ=around.environ)) if file else _built_in(around))
    if as_json:
        click.echo(json.dumps([asdict(offer) for offer in found], indent=2))
        return
    width = max((len(offer.name) for offer in found), default=0)
    for offer in found:
        click.echo(f"{offer.name:<{width}}  {_price(offer):<34}  {offer.note}".rstrip())


def _price(offer: Offer) -> str:
    if offer.input is None:
        return "price unknown"
    if offer.output is None:
        return f"${offer.input} in per million"
    return "free" if offer.input == offer.output == "0" else f"${offer.input} in, ${offer.output} out per million"


def _built_in(around: Surroundings) -> Iterator[Offer]:
    from rubberduck.cli.choice import KEYS, MODELS
    from rubberduck.prices import PriceBook
    from rubberduck.providers.local import model as local_model

    for provider, variable in KEYS.items():
        note = "" if around.environ.get(variable) else f"needs {variable}"
        yield _offer(PriceBook(), provider, provider, MODELS[provider], note)
    note = "" if local_model.is_available() else f"not installed: {local_model.INSTALL_LINE}"
    yield Offer(f"local/{MODELS['local']}", "0", "0", note)
    yield Offer("mock/mock", None, None, "pretends; for trying out")


def _configured(config: Any) -> Iterator[Offer]:
    from rubberduck.cli.choice import MODELS
    from rubberduck.prices import PriceBook
    from rubberduck.wiring import prices_of

    book = PriceBook(prices_of(config))
    for alias, routes in config.models.items():
        yield Offer(alias, None, None, "one of " + ", ".join(routes))
    for provider in config.providers.values():
        known = [MODELS[provider.module]] if provider.module in MODELS else []
        for model in dict.fromkeys([*provider.models, *known]):
            yield _offer(book, provider.name, provider.module, model, "")
        if not provider.models and not known:
            yield Offer(f"{provider.name}/NAME", None, None, "any name that it knows; its `models` lists none")


def _offer(book: PriceBook, provider: str, vendor: str, model: str, note: str) -> Offer:
    if vendor in ("local", "ollama"):
        return Offer(f"{provider}/{model}", "0", "0", note)
    price = book.price(vendor, model, route=f"{provider}/{model}")
    if price is None:
        return Offer(f"{provider}/{model}", None, None, note)
    output = None if price.output is None else f"{price.output:f}"
    return Offer(f"{provider}/{model}", f"{price.input:f}", output, note)
