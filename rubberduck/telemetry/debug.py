"""Logs whole requests and responses while `debug_llm_requests` or `debug_llm_responses` is on.

What people said to a model is in these lines, so both are off unless configured. Keys are redacted in any case,
also where the program's own logging would not.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rubberduck.config import Config
from rubberduck.telemetry.redaction import REDACTOR, Redactor


@dataclass(frozen=True, slots=True)
class DebugLog:
    """Writes what is sent and what comes back, as far as each is asked for. Off, it costs a comparison."""

    requests: bool = False
    responses: bool = False
    redactor: Redactor = REDACTOR

    @classmethod
    def of(cls, config: Config, redactor: Redactor = REDACTOR) -> DebugLog:
        """The log that a configuration asks for; its secrets are made known to the redactor."""
        redactor.learn(config.secrets())
        return cls(config.debug_llm_requests, config.debug_llm_responses, redactor)

    def request(self, provider: str, request: object, **ids: Any) -> None:
        """Log what is about to be sent: a Request, or the body and headers as a mapping."""
        if self.requests:
            self._log("LLM Request", provider, {"request": request, **ids})

    def response(self, provider: str, response: object, **ids: Any) -> None:
        """Log what came back."""
        if self.responses:
            self._log("LLM Response", provider, {"response": response, **ids})

    def _log(self, event: str, provider: str, fields: dict[str, Any]) -> None:
        plain = {name: self.redactor.value(_plain(value)) for name, value in fields.items()}
        _logger().debug(event, provider=provider, **plain)


def _logger() -> Any:
    """The program's own structlog; where it has set none up, one that keeps out of its standard output."""
    import structlog  # slow to import, and most programs never debug

    if structlog.is_configured():
        return structlog.get_logger("rubberduck.debug")
    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr))


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
