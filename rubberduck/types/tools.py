"""What a model may call, and which of it it must."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from rubberduck.types.content import CacheControl
from rubberduck.types.frozen import Frozen


class FunctionDef(Frozen):
    """A function that a model may ask to have called; `parameters` is a JSON Schema."""

    name: str = Field(min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Frozen):
    """A tool that a model may use."""

    type: Literal["function"] = "function"
    function: FunctionDef
    cache_control: CacheControl | None = None


class CustomDef(Frozen):
    """A tool that takes free text. `format` is OpenAI's: a grammar that the text obeys."""

    name: str = Field(min_length=1, max_length=128)
    description: str | None = None
    format: dict[str, Any] | None = None


class CustomTool(Frozen):
    """A tool whose input is text of its own kind and not JSON; OpenAI has these."""

    type: Literal["custom"] = "custom"
    custom: CustomDef


def _kind(tool: Any) -> str | None:
    """Which of them is meant; a tool that does not say is a function."""
    kind = tool.get("type", "function") if isinstance(tool, dict) else getattr(tool, "type", None)
    return f"~{kind}" if kind in ("function", "custom") else None


AnyTool = Annotated[
    Annotated[Tool, Tag("~function")] | Annotated[CustomTool, Tag("~custom")],
    Discriminator(_kind, "tool_type", "a tool is an object of type 'function' or 'custom'"),
]
"""Tags begin with a tilde, by which they are left out where a fault is told of."""


class NamedFunction(Frozen):
    name: str


class NamedTool(Frozen):
    """The one tool that the model must use."""

    type: Literal["function"] = "function"
    function: NamedFunction


class AllowedTools(Frozen):
    """Only these of the `tools` may be used now, by their names; `mode` "required" says that one of them must."""

    type: Literal["allowed_tools"] = "allowed_tools"
    mode: Literal["auto", "required"] = "auto"
    names: tuple[str, ...] = Field(min_length=1)


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedTools
