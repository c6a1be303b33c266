"""The reading verbs, on real files, without a runtime."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import rubberduck
from rubberduck.cli.config import redacted
from rubberduck.config import Config
from rubberduck.core.ledger import AttemptRecord
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.types import Usage

Command = Callable[..., Any]
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def books(tmp_path: Path) -> str:
    """A ledger with one settled, one unpriced, one uncertain and one void attempt."""
    path = tmp_path / "ledger.sqlite"
    intents = [AttemptRecord(f"a{n}", f"c{n}", "openai", "gpt", AT, reserved=Decimal("0.5")) for n in range(4)]
    ledger = SqliteLedger(path)
    ledger.write(
        [
            intents[0].settled(Usage(1000, 200, prompt_audio_tokens=7, service_tier="flex"), Decimal("0.00072"), at=AT),
            intents[1].settled(Usage(10, 20), None, at=AT),
            intents[2].uncertain(at=AT),
            intents[3].voided(at=AT),
        ]
    )
    ledger.close()
    return str(path)


def test_every_attempt_is_exported_as_a_line_of_json(command: Command, books: str) -> None:
    rows = [json.loads(line) for line in command("ledger", "export", "--ledger", books).out.splitlines()]
    assert [row["state"] for row in rows] == ["settled", "settled", "uncertain", "void"]
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"], Decimal(rows[0]["cost"])) == (
        1000,
        200,
        Decimal("0.00072"),
    )
    assert (rows[1]["cost"], rows[0]["provider"], rows[0]["model"]) == (None, "openai", "gpt")
    assert (rows[0]["prompt_audio_tokens"], rows[0]["service_tier"], rows[1]["service_tier"]) == (7, "flex", None)


def test_export_as_csv_has_the_same_rows(command: Command, books: str) -> None:
    rows = list(csv.DictReader(StringIO(command("ledger", "export", "--format", "csv", "--ledger", books).out)))
    assert [row["state"] for row in rows] == ["settled", "settled", "uncertain", "void"]
    assert (rows[1]["cost"], rows[2]["reserved"]) == ("", "0.5")


def test_costs_keep_known_and_unknown_apart(command: Command, books: str) -> None:
    told = command("costs", "--ledger", books)
    assert told.code == 0
    assert "openai/gpt" in told.out
    assert "$0.00072" in told.out
    assert "1 attempts whose cost nobody can tell" in told.out
    assert "up to $0.50" in told.out


def test_costs_as_json_keep_every_digit(command: Command, books: str) -> None:
    told = json.loads(command("costs", "--json", "--ledger", books).out)
    assert (Decimal(told["cost_usd"]), told["tokens"], told["unknown"]) == (Decimal("0.00072"), 1230, 1)


def test_costs_of_this_hour_leave_out_older_ones(command: Command, books: str) -> None:
    assert json.loads(command("costs", "hour", "--json", "--ledger", books).out)["tokens"] == 0


@pytest.mark.parametrize("words", [["costs"], ["ledger", "export"]])
def test_ledger_that_is_not_there_is_an_error(command: Command, tmp_path: Path, words: list[str]) -> None:
    told = command(*words, "--ledger", str(tmp_path / "none.sqlite"))
    assert (told.code, told.out) == (78, "")
    assert not (tmp_path / "none.sqlite").exists()


def test_file_that_is_no_ledger_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("not a database, but long enough to be looked at as one")
    assert command("costs", "--ledger", str(tmp_path / "notes")).code == 78


def test_check_tells_that_all_is_well(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("providers: {pond: {module: mock}}\n")
    told = command("config", "check", "a.yaml")
    assert told.code == 0
    assert "a.yaml: ok: providers pond" in told.out


def test_check_tells_every_fault_with_its_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("providers:\n  pond: {module: mock, weight: heavy}\nretry: {max_attempts: 0}\n")
    told = command("config", "check", "a.yaml")
    assert told.code == 78
    assert "a.yaml:2" in told.err
    assert "a.yaml:3" in told.err
    assert "Traceback" not in told.err


def test_the_schema_is_that_of_the_whole_configuration(command: Command) -> None:
    told = json.loads(command("config", "schema").out)
    assert set(told["properties"]) == set(Config.model_fields)


@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_shown_configuration_has_no_secret(command: Command, tmp_path: Path, shape: list[str]) -> None:
    (tmp_path / "a.yaml").write_text(
        "providers:\n  one: {module: openai, api_key: '${OPENAI_API_KEY}', base_url: 'https://host/v1'}\n"
        "  two: {module: mock, options: {authorization: hunter3, proxy: 'http://me:hunter2@gate/',"
        " note: 'it is sk-canary'}}\n"
        "ledger: {url: 'postgres://u:hunter4@db/x'}\n"
    )
    told = command("config", "show", "a.yaml", *shape, OPENAI_API_KEY="sk-canary")
    assert told.code == 0, told.err
    assert not [word for word in ("sk-canary", "hunter2", "hunter3", "hunter4") if word in told.out]
    assert "host/v1" in told.out


def test_counts_of_tokens_are_no_secrets() -> None:
    assert redacted({"max_tokens": 5, "token": "x", "note": None}, set()) == {
        "max_tokens": 5,
        "token": "***",
        "note": None,
    }


def test_doctor_shows_which_keys_are_set_and_never_their_values(command: Command) -> None:
    told = command("doctor", OPENAI_API_KEY="sk-canary")
    assert "OPENAI_API_KEY is set" in told.out
    assert "ANTHROPIC_API_KEY is not set" in told.out
    assert "sk-canary" not in told.out + told.err


def test_doctor_finds_a_broken_configuration(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("providers: 3\n")
    told = command("doctor", "-c", "a.yaml", "--json")
    assert told.code == 1
    assert {each["subject"] for each in json.loads(told.out) if each["verdict"] == "bad"} >= {"configuration"}


def test_models_tell_what_is_missing(command: Command) -> None:
    told = command("models", OPENAI_API_KEY="sk-1")
    openai, anthropic = told.out.splitlines()[:2]
    assert "needs" not in openai
    assert "needs ANTHROPIC_API_KEY" in anthropic


def test_models_of_a_configuration_are_its_routes(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "providers: {pond: {module: mock, models: [carp]}}\nmodels: {smart: [pond/carp]}\n"
    )
    names = [each["name"] for each in json.loads(command("models", "-c", "a.yaml", "--json").out)]
    assert names == ["smart", "pond/carp", "pond/mock"]


def test_a_model_is_offered_at_the_price_that_the_configuration_says(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "providers: {house: {module: openai, api_key: k, base_url: 'http://127.0.0.1:9/v1', models: [own]}}\n"
        "prices: {house/own: {input: 0.5, output: 1.5}}\n"
    )
    offers = {each["name"]: each for each in json.loads(command("models", "-c", "a.yaml", "--json").out)}
    assert (offers["house/own"]["input"], offers["house/own"]["output"]) == ("0.5", "1.5")


def test_a_model_that_writes_no_text_has_no_price_of_output(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "providers: {openai: {module: openai, api_key: k, models: [text-embedding-3-small]}}\n"
    )
    [offer] = [each for each in json.loads(command("models", "-c", "a.yaml", "--json").out) if "embed" in each["name"]]
    assert (offer["input"], offer["output"]) == ("0.02", None)
    assert "$0.02 in per million" in command("models", "-c", "a.yaml").out


def test_mistyped_verb_is_a_usage_error_with_the_nearest(command: Command) -> None:
    told = command("chta")
    assert told.code == 2
    assert "Did you mean `chat`" in told.err


def run_apart(*words: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(rubberduck.__file__).parents[1])
    environ = os.environ | {"PYTHONPATH": root}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environ, check=False)


def processor_time(*words: str) -> float:
    """Seconds of the processor that a run takes, the best of three: those that it waits for one say nothing of it."""
    took = []
    for _ in range(3):
        begun = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run_apart(*words).returncode == 0
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime)
    return min(took)


def test_version_comes_at_once() -> None:
    assert run_apart("-m", "rubberduck", "--version").stdout.startswith("rubberduck ")
    assert processor_time("-m", "rubberduck", "--version") - processor_time("-c", "") < 0.25  # 0.07 s at rest


@pytest.mark.parametrize("words", [["--version"], ["--help"]])
def test_first_words_import_neither_runtime_nor_client(words: list[str]) -> None:
    code = f"import sys; from rubberduck.cli import main; main({words!r}); print(*sys.modules)"
    loaded = set(run_apart("-c", code).stdout.split())
    assert not loaded & {"pydantic", "httpx", "aiohttp", "pykka", "rich", "tiktoken", "yaml"}
