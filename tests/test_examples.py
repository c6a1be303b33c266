"""Every example runs as it stands, alone, without key or network, and shows what its text promises."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
SHOWS = {
    "01_hello": ["You said: Hello, duck!", "circuit_breaker:mock"],
    "02_streaming": ["Each actor has a mailbox", "it had said 'This one breaks off'"],
    "03_failover": ["primary Overloaded -> fallback success", "requests that reached the broken vendor: 2", "closed"],
    "04_async": ["50 answers", "Quack,| quack,|", "refused: ", "'cancelled']"],
    "05_actors_and_messages": ["forced open", "RateLimited", "a request that cannot", "0.002 USD"],
    "06_costs": ["today: 0.021 USD for 4500 tokens", "spent None", "0.0075 USD at worst", "still says 0.021 USD"],
    "07_telemetry": [
        "request.stop: mock/any, 101 tokens",
        "request.exception: AuthenticationFailed",
        "|h|#provider:mock",
    ],
    "08_own_provider": ["quack! 0.000011 USD", "the ledger: 0.000022 USD"],
    "09_kill_an_actor": ["cost_tracker           killed; 8 calls answered: ['Quack.']", "restarts 1"],
    "10_priorities_and_limits": ["QueueFull", "['in flight', 'urgent', 'later', ", "none failed"],
    "11_supervision_worker_pool": ["400x300", "KeyError: 'height'", "32x32", "cid: come back later", "restarts 1"],
    "12_supervision_healing_tree": [
        "count after a crash: 42",
        "child_restarted root/cache",
        "its successor: well",
        "! zombie root/slow",
        "gave up",
    ],
    "13_supervision_daemon": ["roof  Sensor", "closed: ['sensor up', 'sensor down']", "exit code: 0 not stopped: []"],
    "14_testing_your_code": ["passed: the mock", "passed: a provider alone", "passed: a server", "passed: time passes"],
    "15_error_handling": ["QuotaExceeded", "top the account up", "spent None", "InvalidRequest in 'messages'"],
    "16_debugging_and_caching": ["LLM Request", "Is [redacted] a good key?", "cached: True, cost: 0", "vendor: 1"],
    "17_service_clean_shutdown": ["The last words.", "everything stopped: True []", "threads left: []"],
    "18_supervision_job_pool": [
        "again: no connection for job 4",
        "with a max_handle_time of 0.5 s",
        "done before: 12",
        "left behind: []",
        "passed: all jobs are done whatever comes first",
        "passed: a crash of the limiter gives nobody a burst",
    ],
    "19_durable_jobs": ["second: It was a good year.", "it may have been executed", "submitted again: True"],
    "20_failover_explained": ["> near/any", "waits", "not now: tried: connect", "bill  $0.000008 for 3 attempts"],
    "21_streams_that_break": [
        "fox| jumps|   StreamInterrupted; error.text is 'The quick brown fox jumps'",
        "It| jumped| over| the| dog.|   whole: first StreamInterrupted, second success",
        "jumps| over| the| dog.|   spliced: first StreamInterrupted, second success",
    ],
    "22_budgets_and_keys": [
        "[('key 1', 'QuotaExceeded'), ('key 2', 'success')]",
        "key 1: its account is used up; left alone for another 3600 s",
        "the budget of 'acme' has no room for an attempt",
        "another: 1 USD per day: 0.00009 spent",
        "requests with the first key: 1",
    ],
    "23_structured_output": [
        "R-17: 42.50 for 17 ducks",
        "asked 2 times",
        "lines.0.pieces: Input should be greater than or equal to 1",
        "it was paid for all the same: 0.000075 USD",
        "R-17 by mock",
    ],
    "24_embeddings": [
        "5000 vectors of 8 numbers; ['near ServiceUnavailable', ",
        "'far success', 'far success', 'far success']",
        "49000 tokens, 0.00098 USD; the ledger says 0.00098 USD",
        "same text, same vector: True",
        "6 tokens, says far; estimated: False",
    ],
    "25_own_http_provider": [
        "the pond breaks: nothing",
        "with a mistake: test_a_stream_that_is_cut_is_never_a_short_answer - a quack, cut after 0 bytes",
        "through a duck: ['Qua', 'ck.']",
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """`run(example)` gives what it prints; each is run once for all tests."""
    return functools.cache(lambda example: _run(example, tmp_path_factory.mktemp(example.stem)))


def _run(example: Path, folder: Path) -> str:
    """What the example prints, on both streams; an exit code other than 0 fails."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environ |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(folder), "PYTHONWARNINGS": "error", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, str(example)],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_runs_and_shows_what_it_is_about(example: Path, run: Callable[[Path], str]) -> None:
    said = run(example)
    assert [text for text in SHOWS[example.stem] if text not in said] == [], said
    assert "Traceback" not in said
    assert "never awaited" not in said


def test_examples_are_numbered_without_a_gap_and_each_is_expected_to_show_something() -> None:
    assert [int(path.stem[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))
    assert sorted(SHOWS) == [path.stem for path in EXAMPLES]


def test_an_example_begins_by_saying_what_it_shows() -> None:
    assert [path.name for path in EXAMPLES if not re.match(r'"""[A-Z][^\n]+\.\n', path.read_text())] == []


def test_the_killed_tree_kept_its_books(run: Callable[[Path], str]) -> None:
    said = run(ROOT / "examples" / "09_kill_an_actor.py")
    found = re.search(r"the provider billed (\d+) tokens, the ledger has (\d+)", said)
    assert found is not None, said
    assert found[1] == found[2]
    assert len(re.findall(r"killed; 8 calls answered", said)) == 6
