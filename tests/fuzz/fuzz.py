"""Spoils answers at random and feeds them to every adapter, for as long as one likes.

    python tests/fuzz/fuzz.py --minutes 10 --seed 7

The answers are those of the contracts in tests/providers, and the recorded ones where they are at hand. Each try has a
number; with the same seed it does the same again, and `--only NUMBER` does that one alone. What must hold of any bytes:
nothing but a RubberDuckError is raised; how a stream is cut into pieces changes nothing; no answer has an impossible
usage or an unknown finish reason, no text that cannot be written, no second's work; and memory stays small.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import random
import sys
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "wire")]

from rubberduck.errors import RubberDuckError  # noqa: E402
from rubberduck.providers.http import HTTPProvider  # noqa: E402
from rubberduck.testing import ProviderContract  # noqa: E402
from rubberduck.testing.contract_base import Reading, read_pieces  # noqa: E402
from rubberduck.testing.contract_exchanges import faults_of  # noqa: E402
from rubberduck.testing.damage import damaged, pieces  # noqa: E402
from rubberduck.types import Embeddings, FinishReason, Message, Response, TokenCount  # noqa: E402

LONGEST_S = 1.0
"""How long one answer of this size may take, in time of the processor: the machine may have other work."""
LARGEST_BYTES = 64 * 1024 * 1024
LONGEST_BODY = 200_000
STATUSES = (200, 200, 200, 200, 201, 204, 302, 400, 401, 402, 403, 404, 408, 409, 413, 429, 500, 502, 503, 529, 0, 999)
HEADER_VALUES = (
    "",
    "0",
    "-1",
    "1e999",
    "soon",
    "nan",
    "inf",
    "true",
    "\u00ff",
    "Thu, 32 Foo 2026 99:99:99 GMT",
    "9" * 400,
)
HEADER_NAMES = ("retry-after", "retry-after-ms", "x-request-id", "request-id", "x-should-retry", "content-type")


@dataclass(frozen=True)
class Material:
    """One good answer, who reads it, and what was asked for: "answer", "stream", "embeddings" or "count"."""

    name: str
    provider: HTTPProvider
    kind: str
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Finding:
    """What should not be: which try, of what, with which bytes."""

    number: int
    material: str
    told: str
    body: bytes

    def __str__(self) -> str:
        return f"try {self.number}, {self.material}: {self.told}\n    {self.body[:1500]!r}"


# --- the material


def materials() -> list[Material]:
    return [*_of_contracts(), *_of_recordings()]


def _of_contracts() -> Iterator[Material]:
    for file in sorted((ROOT / "tests" / "providers").glob("test_contract_*.py")):
        for contract in _contracts_in(file):
            provider = contract().make("http://127.0.0.1:9")
            if isinstance(provider, HTTPProvider):
                for each in contract.exchanges:
                    name = f"{file.stem}: {each.name}"
                    yield Material(name, provider, each.kind, each.status, each.headers, each.body)


def _contracts_in(file: Path) -> Iterator[type[ProviderContract]]:
    spec = importlib.util.spec_from_file_location(f"fuzzed_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, ProviderContract) and found.exchanges:
            yield found


def _of_recordings() -> Iterator[Material]:
    from tests_cassettes_rig import CASSETTES

    kinds = {"embeddings": "embeddings", "count": "count"}
    for each in CASSETTES:
        if len(each.body) <= LONGEST_BODY:
            kind = kinds.get(each.kind, "stream" if each.streams else "answer")
            yield Material(each.name, each.provider(), kind, each.status, each.headers, each.body)


# --- one try


class Fuzzer:
    """Tries numbered from 0, each with dice of its own."""

    def __init__(self, seed: int, found: list[Material] | None = None) -> None:
        self.seed = seed
        self.materials = materials() if found is None else found

    def attempt(self, number: int) -> Finding | None:
        """What is wrong in this try, None if nothing is."""
        dice = random.Random(f"{self.seed}/{number}")
        material = dice.choice(self.materials)
        body = damaged(material.body, dice)
        begun = time.process_time()
        try:
            told = self._held(material, body, dice)
        except Exception as error:  # noqa: BLE001 - to find these is what it is for
            told = f"{type(error).__name__}: {error}"
        took = time.process_time() - begun
        if not told and took > LONGEST_S:
            told = f"took {took:.2f} s for {len(body):,} bytes"
        return Finding(number, material.name, told, body) if told else None

    def _held(self, material: Material, body: bytes, dice: random.Random) -> str:
        """What does not hold, in words; empty where all does."""
        headers = _spoilt_headers(material.headers, dice)
        status = dice.choice(STATUSES) if dice.random() < 0.3 else material.status
        provider = material.provider
        error = provider.classify(status, headers, body)
        if not isinstance(error, RubberDuckError):
            return f"classify gives {error!r}"
        _require_writable(str(error))
        if material.kind == "stream" and status == 200:
            return self._stream(provider, body, dice)
        return _answer(provider, material.kind, status, headers, body)

    def _stream(self, provider: HTTPProvider, body: bytes, dice: random.Random) -> str:
        whole = read_pieces(provider.stream_decoder(), [body])
        for _ in range(2):
            other = read_pieces(provider.stream_decoder(), pieces(body, dice))
            if whole != other:
                return f"whole it reads {_brief(whole)}, in pieces {_brief(other)}"
        if whole.error is not None:
            _require_writable(str(whole.error))
            return _impossible(whole.response) if whole.chunks else ""
        if not any(chunk.finish_reason is not None for chunk in whole.chunks):
            return "a clean end without a finish reason"
        return _impossible(whole.response)


def _answer(provider: HTTPProvider, kind: str, status: int, headers: Mapping[str, str], body: bytes) -> str:
    decode: Any = {"embeddings": provider.decode_embedding, "count": provider.decode_count}.get(kind, provider.decode)
    try:
        told = decode(status, headers, body)
    except RubberDuckError as error:
        _require_writable(str(error))
        return ""
    if status != 200:
        return f"an answer of status {status} is taken for a good one"
    match told:
        case Embeddings(vectors=vectors, usage=usage):
            numbers = all(isinstance(each, float) for vector in vectors for each in vector)
            return "; ".join(faults_of(usage)) or ("" if numbers else "a vector holds what is no number")
        case TokenCount(tokens=tokens):
            return "" if isinstance(tokens, int) and tokens >= 0 else f"{tokens!r} tokens"
        case Response():
            return _impossible(told) or ("" if told.choices else "an answer without a choice")
    return f"decode gives {told!r}"


def _impossible(response: Response) -> str:
    wrong = faults_of(response.usage)
    for choice in response.choices:
        if not isinstance(choice.finish_reason, FinishReason):
            wrong.append(f"finish reason {choice.finish_reason!r}")
        if not isinstance(choice.raw_finish_reason, str | None):
            wrong.append(f"raw finish reason {choice.raw_finish_reason!r}")
        wrong += _unusable(choice.message)
    _require_writable(f"{response.id}{response.model}")
    return "; ".join(wrong)


def _unusable(message: Message) -> list[str]:
    """What keeps a message from going back into a conversation."""
    wrong = []
    if not isinstance(message.content, str | None):
        wrong.append(f"content {message.content!r}")
    wrong += [f"tool call {call!r}" for call in message.tool_calls if not call.id]
    _require_writable(message.text + (message.reasoning or "") + (message.refusal or ""))
    message.model_dump_json()
    Message.model_validate(message.model_dump())
    return wrong


def _require_writable(text: str) -> None:
    text.encode()


def _spoilt_headers(headers: Mapping[str, str], dice: random.Random) -> dict[str, str]:
    spoilt = dict(headers)
    if dice.random() < 0.3:
        spoilt[dice.choice(HEADER_NAMES)] = dice.choice(HEADER_VALUES)
    return spoilt


def _brief(reading: Reading) -> str:
    return f"{len(reading.chunks)} chunks, {reading!r}"[:700]


# --- many tries


def run(fuzzer: Fuzzer, seconds: float, *, least: int = 0, most_findings: int = 20) -> tuple[int, list[Finding]]:
    """How many tries the time was enough for, or the `least` where it was not, and what they found."""
    findings: list[Finding] = []
    number, until = 0, time.monotonic() + seconds
    tracemalloc.start()
    try:
        while (number < least or time.monotonic() < until) and len(findings) < most_findings:
            if number % 500 == 0:
                tracemalloc.stop()
                tracemalloc.start() if number % 5000 == 0 else None
            if found := fuzzer.attempt(number):
                findings.append(found)
            if tracemalloc.is_tracing() and tracemalloc.get_traced_memory()[1] > LARGEST_BYTES:
                findings.append(Finding(number, "", f"{tracemalloc.get_traced_memory()[1]:,} bytes of memory", b""))
                tracemalloc.stop()
            number += 1
    finally:
        tracemalloc.stop()
    return number, findings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one try by its number")
    told = parser.parse_args()
    fuzzer = Fuzzer(told.seed)
    if told.only is not None:
        print(fuzzer.attempt(told.only) or "nothing is wrong")
        return 0
    tries, findings = run(fuzzer, told.minutes * 60)
    for finding in findings:
        print(finding)
    print(f"seed {told.seed}: {tries:,} tries on {len(fuzzer.materials)} answers, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
