"""A provider of your own: six callbacks. This one answers by reading the question backwards.

It gets everything the built-in ones have: breaker, limits, retries, queue, ledger. For a vendor with an HTTP API
subclass `rubberduck.providers.http.HTTPProvider` instead, which does the I/O and leaves the translation to you.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

from rubberduck import Choice, Chunk, Config, Delta, Message, Request, Response, RubberDuck, Usage
from rubberduck.config import ProviderConfig
from rubberduck.providers.base import Provider
from rubberduck.types import FinishReason


class Mirror(Provider):
    """Says what it is told, backwards. Its option `mark` is put at the end."""

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name
        self.mark = str(config.options.get("mark", ""))

    @classmethod
    def init(cls, config: ProviderConfig) -> Mirror:
        return cls(config)

    async def complete(self, request: Request) -> Response:
        text = self._answer(request)
        message = Message(role="assistant", content=text)
        choices = (Choice(0, message, FinishReason.STOP),)
        return Response("mirror-1", request.model, choices, self._usage(request, text), provider=self.name)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        text = self._answer(request)
        for letter in text:
            yield Chunk(delta=Delta(content=letter))
        yield Chunk(finish_reason=FinishReason.STOP, usage=self._usage(request, text))

    def supports_model(self, model: str) -> bool:
        return model == "mirror"

    def count_tokens(self, text: str, model: str) -> int:
        return len(text)

    def estimate_cost(self, usage: Usage, model: str) -> Decimal:
        return Decimal("0.000001") * usage.total_tokens

    def _answer(self, request: Request) -> str:
        return request.messages[-1].text[::-1] + self.mark

    def _usage(self, request: Request, text: str) -> Usage:
        return Usage(self.count_tokens(request.messages[-1].text, request.model), len(text))


def main() -> None:
    # In a file: `module: "your_package.mirror:Mirror"`, or the name of an entry point in rubberduck.providers.
    providers = {"mirror": {"module": Mirror, "options": {"mark": "!"}}}
    with RubberDuck.start(Config.load({"providers": providers, "ledger": {"path": ":memory:"}})) as duck:
        request = {"model": "mirror", "messages": [{"role": "user", "content": "kcauq"}]}
        response = duck.complete(request)
        print(response.text, response.usage.cost, "USD")
        with duck.stream(request) as stream:
            print([chunk.delta.content for chunk in stream])
        print("the ledger:", duck.costs().cost, "USD")


if __name__ == "__main__":
    main()
