"""The fuzzer for a moment, and that it would find what it looks for."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rubberduck.providers.openai.provider import OpenAI
from rubberduck.types import Usage


@pytest.fixture(scope="module")
def fuzz() -> Any:
    spec = importlib.util.spec_from_file_location("rubberduck_fuzz", Path(__file__).with_name("fuzz.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path, sys.modules[spec.name] = sys.path[:], module
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


def test_whatever_a_server_says_stays_within_the_error_tree(fuzz: Any) -> None:
    materials = list(fuzz._of_contracts())
    tries, findings = fuzz.run(fuzz.Fuzzer(20260401, materials), seconds=0, least=5000)
    assert not findings, "\n".join(map(str, findings))
    assert tries == 5000


@pytest.mark.parametrize("fault", ["raises", "counts below nothing", "is slow"])
def test_a_fault_is_found(fuzz: Any, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = OpenAI.decode

    def broken(self: OpenAI, *args: Any) -> Any:
        response = decode(self, *args)
        if fault == "raises":
            raise KeyError("choices")
        return replace(response, usage=Usage(-1)) if fault == "counts below nothing" else response

    monkeypatch.setattr(OpenAI, "decode", broken)
    if fault == "is slow":
        monkeypatch.setattr(fuzz, "LONGEST_S", 0.0)
    materials = [each for each in fuzz._of_contracts() if type(each.provider) is OpenAI and each.kind == "answer"]
    fuzzer = fuzz.Fuzzer(1, materials)
    findings = [found for number in range(300) if (found := fuzzer.attempt(number))]
    assert findings
    again = fuzzer.attempt(findings[0].number)
    assert (again.body, again.material) == (findings[0].body, findings[0].material)


def test_nothing_behind_the_end_of_a_stream_counts_however_it_is_cut() -> None:
    """A byte that is no UTF-8 made an answer fail if it came in one piece with its end, and not if it came later."""
    from rubberduck.config import ProviderConfig

    provider = OpenAI(ProviderConfig(name="v", module="openai", base_url="http://127.0.0.1:9"))
    end = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    body = b"data: %s\n\ndata: [DONE]\n\ndata: \xff\n\n" % json.dumps(end).encode()
    whole = provider.stream_decoder()
    chunks = whole.feed(body)
    whole.check()
    assert whole.done
    pieces = provider.stream_decoder()
    assert [chunk for byte in body for chunk in pieces.feed(bytes([byte]))] == chunks
