"""How a server with OpenAI's chat format is asked to reason: each one's words for how much, and what that costs.

Sources: OpenRouter, "Reasoning tokens"; DeepSeek, "Thinking mode"; Google, "OpenAI compatibility"; llama.cpp,
`tools/server/README.md`; Together's and vLLM's request types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rubberduck.providers.openai.compatible_table import Dialect
from rubberduck.types import Request

_IDLE = {"temperature": "no effect", "top_p": "little or no effect"}
_IDLE |= {"presence_penalty": "no effect", "frequency_penalty": "no effect"}
"""What DeepSeek takes while it thinks, but does not heed. (`logprobs` and a forced tool it refuses by itself.)"""
_NEVER_THINKS = "deepseek-chat"
"""Of DeepSeek's models the one that thinks only if it is asked to; the others do unless they are asked not to."""


def encode_reasoning(request: Request, dialect: Dialect) -> dict[str, Any]:
    """The fields of a body that ask for reasoning. A budget says more than an effort: who takes one of them gets it."""
    effort = level_of(request, dialect) if "reasoning_effort" in dialect.fields else None
    budget = request.reasoning_budget if "reasoning_budget" in dialect.fields else None
    summary = request.reasoning_summary if "reasoning_summary" in dialect.fields else None
    if effort is None and budget is None and summary is None:
        return {}
    match dialect.effort:
        case "reasoning":
            return _in_object(effort, budget, summary)
        case "google":
            return _in_google(effort, budget, summary)
        case "thinking":
            return _with_switch(effort)
    asked = {} if effort is None else _asked(effort, dialect)
    return asked if budget is None else asked | {dialect.renamed["reasoning_budget"]: budget}


def _asked(effort: str, dialect: Dialect) -> dict[str, Any]:
    if dialect.effort == "template":
        return {
            "chat_template_kwargs": {"enable_thinking": False} if effort == "none" else {"reasoning_effort": effort}
        }
    if dialect.effort == "enabled" and effort == "none":
        return {"reasoning": {"enabled": False}}
    return {"reasoning_effort": effort}


def _in_object(effort: str | None, budget: int | None, summary: str | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"max_tokens": budget} if budget is not None else {}
    if effort is not None and budget is None:
        asked["effort"] = effort
    if summary not in (None, "none"):
        asked["summary"] = summary
    return {"reasoning": asked} if asked else {}


def _in_google(effort: str | None, budget: int | None, summary: str | None) -> dict[str, Any]:
    config: dict[str, Any] = {} if budget is None else {"thinking_budget": budget}
    if summary not in (None, "none"):
        config["include_thoughts"] = True
    body: dict[str, Any] = {"extra_body": {"google": {"thinking_config": config}}} if config else {}
    return body if effort is None or budget is not None else body | {"reasoning_effort": effort}


def _with_switch(effort: str | None) -> dict[str, Any]:
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    return {} if effort is None else {"thinking": {"type": "enabled"}, "reasoning_effort": effort}


def level_of(request: Request, dialect: Dialect) -> str | None:
    """The effort in the server's own levels; the nearest where it has not the one that was asked for."""
    effort, levels = request.reasoning_effort, dialect.levels
    if effort is None or effort == "none" or not levels or effort in levels:
        return effort
    return levels[0] if effort == "minimal" else levels[-1]


def warnings_for(request: Request, dialect: Dialect) -> Iterator[str]:
    """What of it is told otherwise, and what is not heeded by a model that reasons."""
    asked, level = request.reasoning_effort, level_of(request, dialect)
    if asked is not None and request.reasoning_budget is not None and dialect.effort in ("reasoning", "google"):
        yield "reasoning_effort is not sent: reasoning_budget is, and one excludes the other"
    elif asked != level:
        yield f"reasoning_effort {asked} is sent as {level}: {dialect.word} has no such level"
    if dialect.effort == "google" and request.reasoning_summary in ("concise", "detailed"):
        yield f"reasoning_summary {request.reasoning_summary} is sent as include_thoughts: it has one length"
    if dialect.effort == "thinking" and _thinks(request):
        for name, effect in _IDLE.items():
            if getattr(request, name) is not None:
                yield f"{name} has {effect} while {request.model} thinks, which reasoning_effort='none' turns off"


def _thinks(request: Request) -> bool:
    if request.reasoning_effort is not None:
        return request.reasoning_effort != "none"
    return not request.model.startswith(_NEVER_THINKS)
