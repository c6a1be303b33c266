"""`rubberduck chat`: what is asked, what is printed where, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rubberduck import errors
from rubberduck.types import FinishReason

Command = Callable[..., Any]


def test_answer_goes_to_stdout_and_the_figures_to_stderr(command: Command, duck: Any) -> None:
    told = command("chat", "--mock", "Hello", "duck")
    assert (told.code, told.out) == (0, "Quack!\n")
    assert told.err.startswith("fake/parrot · 3 + 4 tokens · $0.00012 · ")
    assert duck.requests == [{"model": "mock", "messages": [{"role": "user", "content": "Hello duck"}]}]
    assert duck.stopped
    assert duck.streams[0].closed


def test_options_go_into_the_request(command: Command, duck: Any) -> None:
    command("chat", "--mock", "-s", "Be brief.", "--max-tokens", "5", "--temperature", "0", "--timeout", "9", "Hi")
    request = duck.requests[0]
    assert (request["system"], request["max_tokens"], request["temperature"]) == ("Be brief.", 5, 0.0)
    assert duck.options == [{"timeout": 9.0}]


def test_whole_answer_as_json_has_all_figures(command: Command) -> None:
    answer = json.loads(command("chat", "--mock", "--json", "Hi").out)
    assert (answer["text"], answer["provider"], answer["cost_usd"]) == ("Quack!", "fake", "0.00012")
    assert answer["usage"]["total_tokens"] == 7
    assert answer["request_id"] == "req-7"


def test_without_streaming_the_same_is_printed(command: Command) -> None:
    told = command("chat", "--mock", "--no-stream", "Hi")
    assert told.out == "Quack!\n"
    assert "3 + 4 tokens" in told.err


def test_question_comes_from_stdin_where_none_is_given(command: Command, duck: Any) -> None:
    command("chat", "--mock", stdin="What is this?\n")
    assert duck.requests[0]["messages"][0]["content"] == "What is this?"


def test_dash_stands_for_stdin(command: Command, duck: Any) -> None:
    command("chat", "--mock", "Sum this up:", "-", stdin="a long text\n")
    assert duck.requests[0]["messages"][0]["content"] == "Sum this up: a long text"


def test_stdin_is_left_alone_where_there_is_a_question(command: Command, duck: Any) -> None:
    command("chat", "--mock", "Hi", stdin="not asked for")
    assert duck.requests[0]["messages"][0]["content"] == "Hi"


@pytest.mark.parametrize("words", [["chat", "--mock"], ["chat", "--mock", "  "], ["chat", "--max-tokens", "0", "x"]])
def test_wrong_command_lines_are_usage_errors_and_start_nothing(command: Command, duck: Any, words: list[str]) -> None:
    assert command(*words).code == 2
    assert duck.config is None


def test_answer_that_was_cut_off_says_so(command: Command, duck: Any) -> None:
    duck.answers = [["Once upon", FinishReason.LENGTH]]
    assert "--max-tokens" in command("chat", "--mock", "Hi").err


def test_interrupt_ends_with_130_and_stops_everything(command: Command, duck: Any) -> None:
    duck.answers = [["Qu", KeyboardInterrupt()]]
    told = command("chat", "--mock", "Hi")
    assert (told.code, told.out) == (130, "Qu\n")
    assert duck.streams[0].closed
    assert duck.stopped


def test_interrupted_stream_keeps_what_was_printed(command: Command, duck: Any) -> None:
    duck.answers = [["Once", errors.StreamInterrupted("the stream broke off", text="Once", spent=None)]]
    told = command("chat", "--mock", "Hi")
    assert (told.code, told.out) == (75, "Once\n")
    assert "error: the stream broke off" in told.err
    assert "may have been charged" in told.err


def test_failure_shows_no_traceback_unless_asked(command: Command, duck: Any) -> None:
    duck.answers = [[errors.ServiceUnavailable("all down")], [errors.ServiceUnavailable("all down")]]
    assert "Traceback" not in command("chat", "--mock", "Hi").err
    assert "Traceback" in command("chat", "--mock", "--verbose", "Hi").err


def test_fault_of_our_own_is_told_in_a_line(command: Command, duck: Any) -> None:
    duck.answers = [[ZeroDivisionError("oh")]]
    told = command("chat", "--mock", "Hi")
    assert told.code == 1
    assert told.err.splitlines() == [
        "error: ZeroDivisionError: oh",
        "to do: run it again with --verbose, and report what it shows",
    ]


def test_configuration_wins_over_keys(command: Command, duck: Any, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("providers: {pond: {module: mock, models: [carp]}}\n")
    command("chat", "-c", "own.yaml", "Hi", OPENAI_API_KEY="sk-1")
    assert list(duck.config.providers) == ["pond"]
    assert duck.requests[0]["model"] == "pond/carp"


def test_alias_of_the_configuration_is_what_is_asked_for(command: Command, duck: Any, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("providers: {pond: {module: mock}}\nmodels: {smart: [pond/carp]}\n")
    command("chat", "-c", "own.yaml", "Hi")
    assert duck.requests[0]["model"] == "smart"


def test_provider_restricts_a_configuration(command: Command, duck: Any, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("providers: {pond: {module: mock}, lake: {module: mock}}\n")
    command("chat", "-c", "own.yaml", "-p", "lake", "Hi")
    assert duck.options == [{"providers": ["lake"]}]
    told = command("chat", "-c", "own.yaml", "-p", "sea", "Hi")
    assert told.code == 2
    assert "pond, lake" in told.err


def test_wrong_configuration_ends_with_78_and_its_places(command: Command, duck: Any, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("providers:\n  pond: {module: mock, prioriti: 1}\n")
    told = command("chat", "-c", "own.yaml", "Hi")
    assert told.code == 78
    assert "own.yaml:2" in told.err
    assert duck.config is None


def test_conversation_remembers_and_survives_a_failure(
    command: Command, duck: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    duck.answers = [["Hi, Ann"], [errors.Overloaded("busy")], ["You are Ann"]]
    lines = iter(["I am Ann", "Well?", "", "Who am I?"])

    def typed(_prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    told = command("chat", "--mock", tty=True)
    assert told.code == 0
    assert [message["content"] for message in duck.requests[-1]["messages"]] == ["I am Ann", "Hi, Ann", "Who am I?"]
    assert "error: busy" in told.err
