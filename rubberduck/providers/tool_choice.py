"""Which of a request's tools are meant by its `tool_choice`, for every provider alike."""

from __future__ import annotations

from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.types import AllowedTools, AnyTool, NamedTool, Request, Tool


def name_of(tool: AnyTool) -> str:
    """What a model calls a tool by."""
    return tool.function.name if isinstance(tool, Tool) else tool.custom.name


def names_in(choice: object) -> tuple[str, ...] | None:
    """The tools that a choice names; None if it names none and so means them all."""
    match choice:
        case NamedTool(function=function):
            return (function.name,)
        case AllowedTools(names=names):
            return names
        case _:
            return None


def require_tools(request: Request, extra: dict[str, Any]) -> None:
    """Raise InvalidRequest for a choice among tools that are not there: left out, the answer would be another.

    Of tools that stand in `extra` nothing is known, not even their names.
    """
    choice = request.tool_choice
    if choice is None or choice in ("none", "auto") or extra.get("tools"):
        return
    if not request.tools:
        raise InvalidRequest("tool_choice: there are no tools to choose from", field="tool_choice")
    known = {name_of(tool) for tool in request.tools}
    for name in names_in(choice) or ():
        if name not in known:
            raise InvalidRequest(f"tool_choice: there is no tool {name!r}", field="tool_choice")
