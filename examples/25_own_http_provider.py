"""A vendor of your own behind HTTP: its translation, sixty lines, and the contract that says whether it is right.

The vendor here answers {"say": "..."} and streams lines of that kind. `HTTPProvider` does the I/O, the time limits and
the naming of failures; the contract replays what the vendor's server says, cuts it at every byte and spoils it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rubberduck import Choice, Chunk, Config, Delta, Message, Request, Response, RubberDuck, Usage
from rubberduck.errors import ProtocolError, RateLimited, RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.http import HTTPProvider, Outgoing, merge_extra
from rubberduck.providers.reading import as_count, as_dict, as_list, as_text
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.testing import FaultServer, ProviderContract, contract, faults
from rubberduck.types import FinishReason

SENT = ("temperature", "max_tokens")


class Pond(HTTPProvider):
    """Speaks to the pond."""

    default_base_url = "https://api.pond.example"
    key_variable = "POND_API_KEY"

    def supports_model(self, model: str) -> bool:
        return model.startswith("duck-")

    def encode(self, request: Request) -> Outgoing:
        said = [{"who": message.role, "text": message.text} for message in request.messages]
        body: dict[str, Any] = {"model": request.model, "said": said, "stream": request.stream}
        body |= {name: value for name in SENT if (value := getattr(request, name)) is not None}
        return "/say", {"Authorization": f"Bearer {self.key}"}, merge_extra(body, self.extra_of(request))

    def warnings(self, request: Request) -> tuple[str, ...]:
        unsent = request.model_fields_set - {*SENT, "model", "messages", "stream", "extra"}
        return tuple(f"{name} is not sent: the pond has no such parameter" for name in sorted(unsent))

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        said = self.said_in(status, headers, body)
        if not isinstance(said.get("say"), str):
            raise ProtocolError(f"{self.name} answered with something that is no answer")
        choice = Choice(0, Message(role="assistant", content=as_text(said["say"])), FinishReason.STOP)
        return Response("", as_text(said.get("model")), (choice,), usage_of(said) or Usage(estimated=True))

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        return failures.make_error(failures.read_body(body), status, headers, self.name)

    def stream_decoder(self) -> StreamDecoder:
        return PondStream(self.name)


class PondStream(StreamDecoder):
    """Reads `data: {"say": "..."}` until `data: {"end": true}`: without that, the answer was cut."""

    @property
    def is_whole(self) -> bool:
        return self.done

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        if said.get("end") is True:
            self.usage = usage_of(said)
            return self._finish()
        text = as_text(said.get("say"))
        return [Chunk(delta=Delta(content=text))] if text else []

    def _finish(self) -> list[Chunk]:
        self.done = True
        return [Chunk(finish_reason=FinishReason.STOP, usage=self.usage)]


def usage_of(said: dict[str, Any]) -> Usage | None:
    counts = [as_count(number) for number in as_list(as_dict(said.get("tokens")).get("in_out"))]
    return Usage(counts[0] or 0, counts[1] or 0) if len(counts) == 2 else None


# --- what its server says, beside what that means. In a test file this class alone stands, named TestPond, for pytest.

ANSWER = {"say": "Quack.", "tokens": {"in_out": [3, 2]}}
STREAM = 'data: {"say": "Qua"}\n\ndata: {"say": "ck."}\n\ndata: {"end": true, "tokens": {"in_out": [3, 2]}}\n\n'
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2}


class PondContract(ProviderContract):
    provider = Pond
    model = "duck-1"
    exchanges = (
        contract.answer("a quack", ANSWER, text="Quack.", usage=COUNTS),
        contract.stream("a quack", STREAM, text="Quack.", usage=COUNTS),
        contract.failure("too many", 429, {"error": {"message": "Later."}}, RateLimited, headers={"retry-after": "2"},
                         retry_after=2.0),
    )  # fmt: skip


class Hasty(PondStream):
    """The same with one mistake: it takes the end of the bytes for the end of the answer."""

    is_whole = property(lambda self: True)  # type: ignore[assignment]


class HastyContract(PondContract):
    provider = type("HastyPond", (Pond,), {"stream_decoder": lambda self: Hasty(self.name)})


def main() -> None:
    print("the pond breaks:", PondContract.broken() or "nothing")
    for name, told in HastyContract.broken(only="a_stream_that_is_cut").items():
        print("with a mistake:", name, "-", told)
    with FaultServer(faults.Raw(200, {"content-type": "text/event-stream"}, STREAM.encode())) as server:
        providers = {"pond": {"module": Pond, "base_url": server.base_url, "api_key": "k"}}
        with RubberDuck.start(Config.load({"providers": providers, "ledger": {"path": ":memory:"}})) as duck:
            question = {"model": "duck-1", "messages": [{"role": "user", "content": "Say quack."}]}
            with duck.stream(question) as stream:
                print("through a duck:", [chunk.delta.content for chunk in stream if chunk.delta.content])


if __name__ == "__main__":
    main()
