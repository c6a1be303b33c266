"""Logging through structlog: one canonical line per request. Importing this configures nothing.

A program that uses RubberDuck has its own idea of logging, and what we log follows it. The command line, which has
none, calls `configure_logging`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rubberduck import telemetry
from rubberduck.telemetry.names import REQUEST_EXCEPTION, REQUEST_STOP, Event
from rubberduck.telemetry.redaction import REDACTOR, Redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG_HANDLER_ID = "rubberduck-log"
_QUIET = ("httpx", "httpcore", "aiohttp", "asyncio", "urllib3", "pykka")
"""Libraries whose INFO says what URLs were called, or tells of every actor."""


def configure_logging(
    json: bool | None = None,
    level: str | int = "INFO",
    *,
    stream: TextIO | None = None,
    redactor: Redactor = REDACTOR,
) -> None:
    """Log to stderr: as JSON or for people, in UTC, secrets redacted last. For programs of our own.

    `json` None means JSON unless the stream is a terminal. Messages of the standard library's loggers, and so of
    other libraries, take the same way. Calling it again replaces what the last call set up.
    """
    import structlog  # a quarter of a second, which only those who log should pay

    output = sys.stderr if stream is None else stream
    as_json = not output.isatty() if json is None else json
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_common(), processors=_rendering(as_json, redactor), keep_exc_info=False
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(_Redacted(formatter, redactor))
    handler.set_name(LOG_HANDLER_ID)
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if other.get_name() != LOG_HANDLER_ID), handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _common() -> Sequence[Any]:
    import structlog

    return (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )


def _rendering(as_json: bool, redactor: Redactor) -> Sequence[Any]:
    import structlog

    # Tracebacks as plain text: structlog's structured ones print the values of local variables.
    plain = structlog.processors.format_exc_info
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    return (structlog.stdlib.ProcessorFormatter.remove_processors_meta, plain, redactor, renderer)


class _Redacted(logging.Formatter):
    """The last word on a line: whatever rendering or formatting let through is redacted here."""

    def __init__(self, inner: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._inner = inner
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(self._inner.format(record))


def log_attached(handler_id: str = LOG_HANDLER_ID, *, redactor: Redactor = REDACTOR) -> str:
    """Log one line per finished request from now on; returns the id to detach it by.

    Raises:
        AlreadyAttached: a handler of that id is attached.
    """
    telemetry.attach(handler_id, (REQUEST_STOP, REQUEST_EXCEPTION), log_request_event, redactor)
    return handler_id


def log_request_event(
    event: Event, measurements: Mapping[str, Any], metadata: Mapping[str, Any], config: Redactor | None = None
) -> None:
    """A telemetry handler: the canonical line of a request. `config` may be the redactor to use."""
    import structlog

    fields = (config or REDACTOR).value(canonical_fields(measurements, metadata))
    logger = structlog.get_logger("rubberduck.request")
    if event == REQUEST_EXCEPTION:
        logger.warning("LLM request failed", **fields)
    else:
        logger.info("LLM request completed", **fields)


def canonical_fields(measurements: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the line of a request says, with the duration in milliseconds and money as decimal text."""
    fields: dict[str, Any] = {name: metadata.get(name) for name in ("provider", "model", "request_id")}
    duration = measurements.get("duration")
    fields["duration_ms"] = None if duration is None else round(duration / 1_000_000, 3)
    for name in ("tokens", "cost"):
        fields[name] = _plain(metadata.get(name))
    known = {*fields, "event", "level", "timestamp", "logger"}
    return fields | {name: _plain(value) for name, value in metadata.items() if name not in known and value is not None}


def _plain(value: Any) -> Any:
    from decimal import Decimal

    as_dict = getattr(value, "as_dict", None)  # the trace of a call, which is put into words only for who reads it
    if as_dict is not None:
        return as_dict()
    return format(value, "f") if isinstance(value, Decimal) else value
