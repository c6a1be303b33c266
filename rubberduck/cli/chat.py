"""`rubberduck chat`: a question, an answer as it is written, and one line on who gave it at what price."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click

from rubberduck.cli import summary
from rubberduck.cli.surroundings import Surroundings
from rubberduck.cli.verbs import verbose_option
from rubberduck.errors import RubberDuckError
from rubberduck.types import FinishReason, Response


@dataclass(frozen=True, slots=True)
class Manner:
    """How to ask: the model, the fields that go into every request, and how to show the answer."""

    model: str
    fields: dict[str, Any]
    options: dict[str, Any]
    streamed: bool = True
    as_json: bool = False


@click.command()
@click.argument("prompt", nargs=-1)
@click.option("-m", "--model", help="A model, a route provider/model, or a name from the configuration.")
@click.option("-p", "--provider", help="Ask this provider only.")
@click.option("-c", "--config", "config_file", type=click.Path(), help="A configuration file.")
@click.option("-s", "--system", help="What the model is told beforehand.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(0, 2), help="0 is always the same answer, higher is more varied.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Give up after so many seconds.")
@click.option("--no-stream", is_flag=True, help="Print the answer when it is whole.")
@click.option("--mock", is_flag=True, help="Ask the pretended provider: no key, no network, no bill.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer and its figures as JSON.")
@verbose_option
@click.pass_obj
def chat(around: Surroundings, /, prompt: tuple[str, ...], **asked: Any) -> None:
    """Ask a model.

    Without a PROMPT on a terminal it is a conversation, ended by Ctrl-D; off a terminal the question is read from
    stdin. A `-` within the PROMPT stands for stdin.
    """
    question = _question(prompt)
    if question is None and asked["as_json"]:
        raise click.UsageError("--json needs a question; a conversation has many answers")
    config, model = _prepared(around, asked)
    fields = {name: asked[name] for name in ("system", "max_tokens", "temperature") if asked[name] is not None}
    options = {"timeout": asked["timeout"]} if asked["timeout"] else {}
    if asked["provider"] and asked["provider"] in config.providers:
        options["providers"] = [asked["provider"]]
    manner = Manner(
        model, fields, options, streamed=not (asked["no_stream"] or asked["as_json"]), as_json=asked["as_json"]
    )
    with around.start(config) as duck:
        if question is None:
            _converse(duck, manner)
        else:
            _answer(duck, manner, [{"role": "user", "content": question}])


def _prepared(around: Surroundings, asked: dict[str, Any]) -> tuple[Any, str]:
    """The configuration to start with and the model to ask for."""
    from rubberduck.cli.choice import Wanted, choose, default_model
    from rubberduck.config import Config, find_config
    from rubberduck.providers.local import model as local_model

    wanted = Wanted(asked["provider"], asked["model"], asked["mock"])
    file = None if wanted.mock else find_config(asked["config_file"], environ=around.environ)
    choice = choose(wanted, around.environ, file, has_local=local_model.is_available())
    config = Config.load(choice.source, environ=around.environ)
    if wanted.provider and wanted.provider not in config.providers:
        known = ", ".join(config.providers)
        raise click.UsageError(f"{choice.why} has no provider {wanted.provider!r}; it has {known}")
    return config, choice.model or default_model(config, wanted.provider)


def _question(prompt: tuple[str, ...]) -> str | None:
    """The question in full, or None for a conversation."""
    if not prompt:
        if sys.stdin is not None and sys.stdin.isatty():
            return None
        question = _stdin()
    else:
        question = " ".join(_stdin() if word == "-" else word for word in prompt)
    if not question.strip():
        raise click.UsageError('there is no question: rubberduck chat "Why is the sky blue?"')
    return question


def _stdin() -> str:
    return sys.stdin.read().strip()


def _answer(duck: Any, manner: Manner, messages: list[dict[str, str]]) -> str:
    request = {"model": manner.model, "messages": [*messages]} | manner.fields
    begun = time.monotonic()
    return _streamed(duck, manner, request, begun) if manner.streamed else _whole(duck, manner, request, begun)


def _whole(duck: Any, manner: Manner, request: dict[str, Any], begun: float) -> str:
    response: Response = duck.complete(request, **manner.options)
    seconds = time.monotonic() - begun
    reason = response.choices[0].finish_reason if response.choices else None
    if manner.as_json:
        click.echo(json.dumps(as_json(response, seconds), ensure_ascii=False, indent=2))
        return response.text
    click.echo(response.text)
    _tell(response, seconds, reason, response)
    return response.text


def _streamed(duck: Any, manner: Manner, request: dict[str, Any], begun: float) -> str:
    written: list[str] = []
    reason: FinishReason | None = None
    with duck.stream(request, **manner.options) as stream:
        try:
            for chunk in stream:
                reason = chunk.finish_reason or reason
                if chunk.delta.content:
                    written.append(chunk.delta.content)
                    click.echo(chunk.delta.content, nl=False)
        finally:
            if written:
                click.echo()
        _tell(stream, time.monotonic() - begun, reason, stream.response)
    return "".join(written)


def _tell(answer: Any, seconds: float, reason: FinishReason | None, whole: Response | None) -> None:
    told = summary.line(
        provider=answer.provider,
        model=answer.model,
        usage=answer.usage,
        seconds=seconds,
        finish_reason=reason,
        attempts=whole.attempts if whole else (),
    )
    click.secho(told, err=True, dim=True)


def as_json(response: Response, seconds: float) -> dict[str, Any]:
    """The answer and its figures, as plain values."""
    usage = response.usage
    return {
        "text": response.text,
        "provider": response.provider,
        "model": response.model,
        "finish_reason": response.choices[0].finish_reason.value if response.choices else None,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "estimated": usage.estimated,
        },
        "cost_usd": None if usage.cost is None else str(usage.cost),
        "seconds": round(seconds, 3),
        "attempts": [
            {
                "provider": each.provider,
                "model": each.model,
                "outcome": each.outcome,
                "seconds": round(each.duration, 3),
            }
            for each in response.attempts
        ],
        "request_id": response.request_id,
    }


def _converse(duck: Any, manner: Manner) -> None:
    """Questions and answers until the end of input. An answer that fails or is interrupted is left out of the talk."""
    from rubberduck.cli import failure

    messages: list[dict[str, str]] = []
    click.secho("Ask away; Ctrl-D ends, Ctrl-C stops an answer.", err=True, dim=True)
    for question in _questions():
        messages.append({"role": "user", "content": question})
        try:
            messages.append({"role": "assistant", "content": _answer(duck, manner, messages)})
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
            messages.pop()
        except RubberDuckError as error:
            click.echo(failure.text(error), err=True)
            messages.pop()


def _questions() -> Iterator[str]:
    try:
        import readline  # noqa: F401 - importing it gives `input` its line editing
    except ImportError:  # not on every platform
        pass
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            return
        if question:
            yield question
