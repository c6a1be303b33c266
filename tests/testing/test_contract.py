"""The contract for providers, run on a vendor of twenty lines that keeps it, and on the same one broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from rubberduck.errors import ProtocolError, RateLimited, RubberDuckError, ServiceUnavailable
from rubberduck.providers.http import HTTPProvider, Outgoing, merge_extra
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.testing import ProviderContract, contract, contract_answers
from rubberduck.types import Choice, Chunk, Delta, FinishReason, Message, Request, Response, Usage

SENT = {"temperature", "max_tokens"}


def usage_in(said: dict[str, Any]) -> Usage:
    count = said.get("count")
    return Usage(*count) if isinstance(count, list) and _are_counts(count) else Usage(estimated=True)


def _are_counts(count: list[Any]) -> bool:
    return len(count) == 2 and all(type(number) is int and 0 <= number < 2**53 for number in count)


def text_in(value: object) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


class PondStream(StreamDecoder):
    """Lines of {"say": "..."}; one of {"end": true, "count": [in, out]} is the last."""

    @property
    def is_whole(self) -> bool:
        return self.done

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        if said.get("end") is True:
            self.usage = usage_in(said)
            return self._finish()
        text = text_in(said.get("say"))
        return [Chunk(delta=Delta(content=text))] if text else []

    def _finish(self) -> list[Chunk]:
        self.done = True
        return [Chunk(finish_reason=FinishReason.STOP, usage=self.usage)]


class Pond(HTTPProvider):
    """A vendor as small as one can be."""

    default_base_url = "https://pond.example"
    key_variable = "POND_KEY"
    reader: ClassVar[type[StreamDecoder]] = PondStream

    def supports_model(self, model: str) -> bool:
        return model == "duck-1"

    def encode(self, request: Request) -> Outgoing:
        said = [{"who": message.role, "text": message.text} for message in request.messages]
        body = {"model": request.model, "said": said}
        body |= {name: value for name in SENT if (value := getattr(request, name)) is not None}
        return "/say", {"Authorization": f"Bearer {self.key}"}, merge_extra(body, self.extra_of(request))

    def warnings(self, request: Request) -> tuple[str, ...]:
        unsent = request.model_fields_set - SENT - {"model", "messages", "stream", "extra"}
        return tuple(f"{name} is not sent" for name in sorted(unsent))

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        said = self.said_in(status, headers, body)
        if not isinstance(said.get("say"), str):
            raise ProtocolError("no answer of the pond")
        choice = Choice(0, Message(role="assistant", content=text_in(said["say"])), FinishReason.STOP)
        return Response("pond", "duck-1", (choice,), usage_in(said), provider=self.name)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        error = RateLimited if status == 429 else ServiceUnavailable
        return error(f"{self.name} answered {status}: {body[:200].decode(errors='replace')}", status=status)

    def stream_decoder(self) -> StreamDecoder:
        return self.reader(self.name)


def lines(*said: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(each)}\n\n" for each in said)


class PondContract(ProviderContract):
    provider = Pond
    model = "duck-1"
    exchanges = (
        contract.answer(
            "a quack",
            {"say": "Quack.", "count": [3, 2]},
            text="Quack.",
            usage={"prompt_tokens": 3, "completion_tokens": 2},
        ),
        contract.stream(
            "a quack", lines({"say": "Qua"}, {"say": "ck."}, {"end": True, "count": [3, 2]}), text="Quack."
        ),
        contract.failure("too many", 429, {"why": "slow down"}, RateLimited),
        contract.failure("broken", 500, "", ServiceUnavailable),
    )


class TestPond(PondContract):
    """A third party's own test file would hold just this."""


class TestMock(ProviderContract):
    """It asks no server."""

    provider = "mock"
    model = "mock"
    options = {"base_url": None, "api_keys": (), "responses": [{"content": "Quack, quack."}]}


# --- it can fail


def broken(only: str = "", **methods: Any) -> dict[str, str]:
    """What the contract says of a pond with other methods."""
    reader = type("BrokenStream", (PondStream,), methods.pop("reading", {}))
    provider = type("BrokenPond", (Pond,), {"reader": reader, **methods})
    return type("Broken", (PondContract,), {"provider": provider}).broken(only)


def test_what_keeps_the_contract_breaks_nothing() -> None:
    assert broken() == {}


def encoded(change: Any) -> Any:
    def encode(self: Pond, request: Request) -> Outgoing:
        path, headers, body = Pond.encode(self, request)
        return path, headers, change(self, request, body)

    return encode


def shuffled(self: Pond, request: Request, body: dict[str, Any]) -> dict[str, Any]:
    self.turn = getattr(self, "turn", 0) + 1
    return body | {"id": self.turn}


def renamed(self: Pond, request: Request, body: dict[str, Any]) -> dict[str, Any]:
    object.__setattr__(request.messages[0], "name", "somebody")
    return body


def stumbles(self: Pond, request: Request) -> Outgoing:
    if request.tools:
        raise KeyError("tools")
    return Pond.encode(self, request)


BREAKS: dict[str, tuple[dict[str, Any], str]] = {
    "its body is no JSON": ({"encode": encoded(lambda s, r, b: b | {"x": {1}})}, "every_request_is_an_object"),
    "its body differs each time": ({"encode": encoded(shuffled)}, "encoding_changes_nothing"),
    "it changes what it is given": ({"encode": encoded(renamed)}, "encoding_changes_nothing"),
    "it forgets the model": ({"encode": encoded(lambda s, r, b: b | {"model": "x"})}, "the_model_is_sent"),
    "it puts the key into the body": ({"encode": encoded(lambda s, r, b: b | {"key": s.key})}, "the_model_is_sent"),
    "it forgets extra": ({"extra_of": lambda s, r: {}}, "parameters_of_its_own"),
    "it drops fields silently": ({"warnings": lambda s, r: ()}, "no_field_is_dropped"),
    "it crashes on tools": ({"encode": stumbles}, "every_request_is_an_object"),
    "it takes a cut stream for whole": (
        {
            "reading": {
                "is_whole": property(lambda s: True),
                "_finish": lambda s: [Chunk(finish_reason=FinishReason.STOP)],
            }
        },
        "a_stream_that_is_cut",
    ),
    "it loses text": ({"reading": {"_read": lambda s, e, d: PondStream._read(s, e, d)[:0]}}, "a_stream_means"),
    "it reads what is no text": (
        {"reading": {"_read": lambda s, e, d: [Chunk(delta=Delta(content=d["say"]))] if "say" in d else s._finish()}},
        "spoilt_streams",
    ),
    "it counts below nothing": (
        {"decode": lambda s, st, h, b: Response("", "", Pond.decode(s, st, h, b).choices, Usage(-1, 0))},
        "a_whole_answer",
    ),
    "it takes anything for an answer": (
        {
            "decode": lambda s, st, h, b: Response(
                "", "", (Choice(0, Message(role="assistant"), FinishReason.STOP),), Usage()
            )
        },
        "what_is_no_answer",
    ),
    "it names failures wrongly": (
        {"classify": lambda s, st, h, b: ServiceUnavailable("no", status=st)},
        "every_failure_has",
    ),
    "it cannot read failures": ({"classify": lambda s, st, h, b: json.loads(b)["error"]}, "every_failure_can"),
    "it tells the key": ({"__repr__": lambda s: f"Pond({s.key})"}, "the_key_is_sent"),
    "it has no model": ({"supports_model": lambda s, m: False}, "models_tokens_and_prices"),
    "it pays for tokens": ({"estimate_cost": lambda s, u, m: -1}, "models_tokens_and_prices"),
    "it offers what it cannot": ({"offers": frozenset({"chat", "count"})}, "there_is_an_exchange"),
    "all share one reader": (
        {"stream_decoder": lambda s: s.__dict__.setdefault("one", PondStream("pond"))},
        "two_streams_at_once",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_provider_breaks_the_contract_where(name: str) -> None:
    methods, expected = BREAKS[name]
    assert broken(expected, **dict(methods)) != {}
    assert broken(expected) == {}


def test_a_stream_that_holds_on_to_its_connection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stream(self: Pond, request: Request) -> Any:
        inner = HTTPProvider.stream(self, request)
        self.__dict__.setdefault("kept", []).append(inner)
        yield await anext(inner)

    class Hasty(contract_answers.FaultServer):  # the end of the line is waited for, and will not come
        def wait_for(self, condition: Any, timeout: float = 0.2) -> None:
            super().wait_for(condition, 0.2)

    monkeypatch.setattr(contract_answers, "FaultServer", Hasty)
    assert "test_giving_a_stream_up_closes_its_connection" in broken("giving_a_stream_up", stream=stream)


@pytest.mark.parametrize("name", ["it cannot read failures", "it forgets the model", "it crashes on tools"])
def test_a_provider_is_closed_also_where_it_breaks_the_contract(name: str) -> None:
    """What is left open is closed by the garbage collector, and its warning hits whatever runs then."""
    made, closed = [], []

    class Counted(Pond):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

        async def aclose(self) -> None:
            closed.append(self)
            await super().aclose()

    provider = type("BrokenPond", (Counted,), dict(BREAKS[name][0]))
    assert type("Broken", (PondContract,), {"provider": provider}).broken() != {}
    assert len(made) == len(closed) > 0


def test_the_test_kit_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import rubberduck.testing; import rubberduck.testing.contract"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=110)
