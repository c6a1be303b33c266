"""Four ways to test code that calls models, none of which needs a network, a key or patience.

A scripted provider, an injected HTTP client, a server that fails on command, and a clock that the test moves itself.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from rubberduck import Request, RubberDuck
from rubberduck.config import ProviderConfig
from rubberduck.errors import RateLimited
from rubberduck.providers.openai.provider import OpenAI
from rubberduck.testing import FaultServer, faults
from supervision.testing import ManualClock

HI: dict[str, Any] = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
IN_MEMORY = {"path": ":memory:"}


def the_mock_provider_answers_from_a_script() -> None:
    config = {"providers": {"mock": {"responses": [{"content": "Test response", "tokens": 100}]}}, "ledger": IN_MEMORY}
    with RubberDuck.start(config) as duck:
        assert duck.complete(HI).text == "Test response"
        assert duck.complete(HI).usage.completion_tokens == 100


def a_provider_alone_is_given_an_http_client() -> None:
    def vendor(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://api.openai.com/v1/chat/completions"
        assert json.loads(request.content)["model"] == "gpt-4"
        return httpx.Response(429, json={"error": {"message": "Rate limit exceeded", "type": "rate_limit_error"}})

    client = httpx.AsyncClient(transport=httpx.MockTransport(vendor))
    openai = OpenAI.init(ProviderConfig(name="openai", api_keys=("test-key",), http_client=client))
    said = ""
    try:
        asyncio.run(openai.complete(Request.parse(HI)))
    except RateLimited as error:
        said = str(error)
    assert "Rate limit exceeded" in said


def a_server_fails_on_command() -> None:
    with FaultServer(faults.Cut(after=2), faults.Ok("Whole at last.")) as server:
        config = {"providers": {"openai": {"base_url": f"{server.base_url}/v1"}}, "retry": {"base_delay": "1ms"}}
        with RubberDuck.start({**config, "ledger": IN_MEMORY}) as duck:
            response = duck.complete(HI)
        assert response.text == "Whole at last."
        assert len(server.calls) == 2
        print("  the attempts were:", [attempt.outcome for attempt in response.attempts])


def time_passes_when_the_test_says_so() -> None:
    clock = ManualClock()
    config = {
        "providers": {"mock": {"responses": ["one", "two"]}},
        "cache": {"ttl": "5m"},
        "ledger": IN_MEMORY,
    }
    with RubberDuck.start(config, clock=clock) as duck:
        assert [duck.complete(HI).text, duck.complete(HI).text] == ["one", "one"]
        clock.advance(301)
        assert duck.complete(HI).text == "two"


def main() -> None:
    for test in (
        the_mock_provider_answers_from_a_script,
        a_provider_alone_is_given_an_http_client,
        a_server_fails_on_command,
        time_passes_when_the_test_says_so,
    ):
        test()
        print("passed:", test.__name__.replace("_", " "))


if __name__ == "__main__":
    main()
