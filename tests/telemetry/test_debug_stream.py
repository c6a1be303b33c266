"""Where debug lines go in a program that has set up no logging."""

from __future__ import annotations

import pytest
import structlog

from rubberduck.telemetry.debug import DebugLog


def test_debug_lines_keep_out_of_standard_output_where_no_logging_is_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    DebugLog(requests=True).request("openai", {"text": "hello"}, request_id="r1")
    told = capsys.readouterr()
    assert told.out == ""
    assert all(word in told.err for word in ("LLM Request", "openai", "hello", "r1"))
