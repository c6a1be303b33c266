"""Logging: one canonical line a request, nothing configured by import, no secret in any line."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
import structlog

from rubberduck import telemetry
from rubberduck.config import Config
from rubberduck.telemetry import names
from rubberduck.telemetry.debug import DebugLog
from rubberduck.telemetry.logging import LOG_HANDLER_ID, configure_logging, log_attached
from rubberduck.telemetry.redaction import Redactor
from rubberduck.types import Choice, FinishReason, Message, Request, Response, Usage

CANARY = 'sk-canary "4711"/x'
FORMS = (CANARY, json.dumps(CANARY)[1:-1], base64.b64encode(CANARY.encode()).decode(), quote(CANARY, safe=""))
WHO = {"system": "duck", "provider": "openai", "model": "gpt-4o", "request_id": "r-1"}


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "aiohttp", "asyncio", "urllib3")}
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)
    for name, value in levels.items():
        logging.getLogger(name).setLevel(value)


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def tell(event: Any, measurements: Any, **metadata: Any) -> None:
    handler = log_attached()
    try:
        telemetry.execute(event, measurements, WHO | metadata)
        assert telemetry.flush()
    finally:
        telemetry.detach(handler)


def test_a_request_that_ends_well_is_one_line(output: io.StringIO) -> None:
    configure_logging(json=True, stream=output)
    tell(names.REQUEST_STOP, {"duration": 1_234_567}, tokens=30, cost=Decimal("0.0000012"))
    (line,) = lines(output)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "LLM request completed",
        "level": "info",
        "logger": "rubberduck.request",
        "system": "duck",
        "provider": "openai",
        "model": "gpt-4o",
        "request_id": "r-1",
        "duration_ms": 1.235,
        "tokens": 30,
        "cost": "0.0000012",
    }


def test_a_request_that_fails_is_one_line_with_its_reason(output: io.StringIO) -> None:
    configure_logging(json=True, stream=output)
    tell(names.REQUEST_EXCEPTION, {"duration": 5_000_000}, error="RateLimited", message=f"refused {CANARY}", attempts=2)
    (line,) = lines(output)
    assert (line["event"], line["level"]) == ("LLM request failed", "warning")
    assert (line["error"], line["attempts"], line["duration_ms"]) == ("RateLimited", 2, 5.0)
    assert (line["tokens"], line["cost"]) == (None, None)


def test_only_the_end_of_a_request_is_logged(output: io.StringIO) -> None:
    configure_logging(json=True, stream=output)
    tell(names.REQUEST_START, {})
    tell(names.COST, {"cost": 1})
    assert output.getvalue() == ""


def test_for_people_a_line_is_readable_and_uncoloured(output: io.StringIO) -> None:
    configure_logging(json=False, stream=output)
    tell(names.REQUEST_STOP, {"duration": 1_000_000}, tokens=30)
    (line,) = output.getvalue().splitlines()
    assert "LLM request completed" in line
    assert "tokens=30" in line
    assert "\x1b" not in line


def test_off_a_terminal_it_is_json(output: io.StringIO) -> None:
    configure_logging(stream=output)
    structlog.get_logger("x").info("hello")
    assert lines(output)[0]["event"] == "hello"


def test_the_level_holds_and_configuring_again_replaces(output: io.StringIO) -> None:
    configure_logging(json=True, level="DEBUG", stream=output)
    configure_logging(json=True, level="WARNING", stream=output)
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    logging.getLogger("httpx").info("GET https://host/?key=1")
    assert [line["event"] for line in lines(output)] == ["loud"]
    assert [handler.get_name() for handler in logging.getLogger().handlers].count(LOG_HANDLER_ID) == 1


def test_libraries_that_log_urls_are_quiet_at_info(output: io.StringIO) -> None:
    configure_logging(json=True, level="INFO", stream=output)
    logging.getLogger("httpx").info("GET https://host/?key=1")
    logging.getLogger("somebody").info("hello %s", "there")
    assert [line["event"] for line in lines(output)] == ["hello there"]


def leak_everywhere(secret: str) -> None:
    """Says a secret in every way that programs say too much."""
    log = structlog.get_logger("leaky")
    for form in FORMS:
        log.info(f"message {form}", value=form, nested={"list": [form]}, api_key=form, **{form: 1})
        logging.getLogger("foreign").warning("text %s %r", form, {"k": form}, extra={"more": form})
    try:
        local = secret
        raise ValueError(f"failed with {local}")
    except ValueError:
        log.exception("crashed", obj=object())
        logging.getLogger("foreign").exception("crashed")
    log.info("stack", stack_info=True)


@pytest.mark.parametrize("as_json", [True, False])
def test_no_form_of_a_secret_is_ever_written(output: io.StringIO, as_json: bool) -> None:
    configure_logging(json=as_json, level="DEBUG", stream=output, redactor=Redactor([CANARY]))
    leak_everywhere(CANARY)
    written = output.getvalue()
    assert "message" in written
    assert "Traceback" in written
    for form in (*FORMS, json.dumps(json.dumps(CANARY)[1:-1])[1:-1]):
        assert form not in written


def test_a_secret_that_only_rendering_makes_a_text_is_not_written_either(output: io.StringIO) -> None:
    configure_logging(json=True, stream=output, redactor=Redactor(["471147114711"]))
    structlog.get_logger("x").info("numbers", value=471147114711)
    assert "numbers" in output.getvalue()
    assert "4711" not in output.getvalue()


def test_without_the_redactor_the_same_would_leak(output: io.StringIO) -> None:
    """The test above can fail: with a redactor that knows nothing, the secret is in the lines."""
    configure_logging(json=False, level="DEBUG", stream=output, redactor=Redactor())
    leak_everywhere("canary-of-another-shape")
    assert "canary-of-another-shape" in output.getvalue()


REQUEST = Request.parse({"model": "gpt-4o", "messages": [{"role": "user", "content": f"Hi, my key is {CANARY}"}]})
RESPONSE = Response(
    id="1",
    model="gpt-4o",
    choices=(Choice(0, Message(role="assistant", content=f"Never say {CANARY}"), FinishReason.STOP),),
    usage=Usage(1, 2, cost=Decimal("0.5")),
)


def debug_config(**flags: bool) -> Config:
    return Config.load({"providers": {"openai": {"api_key": CANARY.replace(" ", "")}}, **flags}, environ={})


@pytest.mark.parametrize("requests", [True, False])
@pytest.mark.parametrize("responses", [True, False])
def test_requests_and_responses_are_logged_only_where_asked_for(requests: bool, responses: bool) -> None:
    log = DebugLog.of(debug_config(debug_llm_requests=requests, debug_llm_responses=responses), Redactor([CANARY]))
    with structlog.testing.capture_logs() as logged:
        log.request("openai", REQUEST, request_id="r-1")
        log.response("openai", RESPONSE, request_id="r-1")
    told = {"LLM Request": requests, "LLM Response": responses}
    assert [line["event"] for line in logged] == [event for event, wanted in told.items() if wanted]
    assert all(line["provider"] == "openai" and line["request_id"] == "r-1" for line in logged)
    assert all(line["log_level"] == "debug" for line in logged)
    assert CANARY not in repr(logged)


def test_a_debug_line_has_the_content_and_the_headers_without_the_keys() -> None:
    log = DebugLog(requests=True, responses=True, redactor=Redactor([CANARY]))
    headers = {"Authorization": "Bearer x", "x-api-key": "y", "accept": "json"}
    with structlog.testing.capture_logs() as logged:
        log.request("openai", {"json": REQUEST.model_dump(), "headers": headers})
        log.response("openai", RESPONSE)
    assert logged[0]["request"]["headers"] == {
        "Authorization": "[redacted]",
        "x-api-key": "[redacted]",
        "accept": "json",
    }
    assert logged[0]["request"]["json"]["messages"][0]["content"] == "Hi, my key is [redacted]"
    assert logged[1]["response"]["choices"][0]["message"]["content"] == "Never say [redacted]"
    assert logged[1]["response"]["usage"]["completion_tokens"] == 2


def test_the_secrets_of_a_configuration_become_known_to_the_redactor() -> None:
    redactor = Redactor()
    DebugLog.of(Config.load({"providers": {"mock": {"api_key": "a-plain-canary"}}}, environ={}), redactor)
    assert "canary" not in redactor.text("x a-plain-canary x")


def test_importing_configures_nothing_and_does_not_load_structlog() -> None:
    code = (
        "import logging, sys\n"
        "import rubberduck.telemetry, rubberduck.telemetry.logging, rubberduck.telemetry.debug\n"
        "import rubberduck.telemetry.statsd, rubberduck.telemetry.redaction\n"
        "print('structlog' in sys.modules, logging.getLogger().handlers, logging.getLogger().level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "[]", "30"]
