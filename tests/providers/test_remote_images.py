"""Images that a request only names: fetched from the open Internet, once looked at, and from nowhere else."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from typing import Any

import httpx
import pytest

from rubberduck.config import ProviderConfig
from rubberduck.errors import ConfigError, InvalidRequest
from rubberduck.providers.ollama import remote_images
from rubberduck.providers.ollama.provider import Ollama
from rubberduck.providers.ollama.remote_images import RemoteImages
from rubberduck.transport_pinned import fetch_pinned
from rubberduck.types import Request

PNG = b"\x89PNG\r\n\x1a\n"
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
PUBLIC = "93.184.216.34"
URL = "https://example.com/a%20b.png?size=1"


def asked(*urls: str) -> Request:
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    text = {"type": "text", "text": "See"}
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": [text, *parts]}]
    return Request.parse({"model": "llava", "messages": messages})


def reply(status: int = 200, kind: str = "image/png", body: bytes = PNG, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": kind} | headers, content=body)


class World:
    """A network of names and one server behind all public addresses; remembers what was asked."""

    def __init__(self, answer: Any = None, **addresses: list[str]) -> None:
        self.answer = reply() if answer is None else answer
        self.addresses = {"example.com": [PUBLIC], **addresses}
        self.resolved: list[str] = []
        self.requests: list[httpx.Request] = []

    async def resolve(self, host: str) -> list[str]:
        self.resolved.append(host)
        if host not in self.addresses:
            raise OSError("no such name")
        return self.addresses[host]

    def serve(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def images(self) -> RemoteImages:
        get = functools.partial(fetch_pinned, transport=httpx.MockTransport(self.serve))
        return RemoteImages(self.resolve, get)

    def bring(self, *urls: str) -> list[str]:
        request = asyncio.run(self.images().brought_into(asked(*urls)))
        return [part.image_url.url for part in request.messages[1].parts[1:]]  # type: ignore[union-attr]

    def refuse(self, *urls: str) -> str:
        with pytest.raises(InvalidRequest) as refused:
            self.bring(*urls)
        assert refused.value.field == "messages.content.image_url.url"
        return refused.value.message


def test_an_image_is_fetched_from_the_address_that_was_looked_at() -> None:
    world = World()
    assert world.bring(URL) == [DATA_URL]
    (request,) = world.requests
    assert (request.url.host, request.url.raw_path) == (PUBLIC, b"/a%20b.png?size=1")
    assert request.headers["host"] == request.extensions["sni_hostname"] == "example.com"
    assert world.resolved == ["example.com"]
    assert not {"authorization", "cookie"} & request.headers.keys()


def test_the_rest_of_the_request_stays_as_it_is() -> None:
    before = asked(DATA_URL, URL)
    after = asyncio.run(World().images().brought_into(before))
    assert after.messages[0] is before.messages[0]
    assert after.messages[1].parts[:2] == before.messages[1].parts[:2]
    assert after.messages[1].parts[2].image_url.detail == "low"  # type: ignore[union-attr]


def test_what_names_no_image_elsewhere_is_not_touched() -> None:
    world = World()
    request = asked(DATA_URL)
    assert asyncio.run(world.images().brought_into(request)) is request
    assert world.resolved == []


def test_an_image_named_twice_is_fetched_once() -> None:
    world = World()
    assert world.bring(URL, URL) == [DATA_URL, DATA_URL]
    assert len(world.requests) == 1


def test_ipv6_addresses_are_gone_to_as_well() -> None:
    world = World(six=["2606:2800:220:1::1"])
    assert world.bring("https://six/a") == [DATA_URL]
    assert world.requests[0].url.host == "2606:2800:220:1::1"


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], [PUBLIC, "192.168.0.1"]],
)
def test_a_name_that_leads_inside_is_not_gone_to(addresses: list[str]) -> None:
    world = World(inside=addresses)
    assert "open Internet" in world.refuse("https://inside/latest/meta-data")
    assert world.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png", "https://example.com:8443/a.png", "https://me:secret@example.com/a.png",
        "https:///a.png", "ftp://example.com/a", "file:///etc/passwd", "https://[::1/a", "https://example.com:x/a", "a",
        "https://unknown.example/a.png", "https://ex..ample/a.png",
    ],
)  # fmt: skip
def test_what_is_no_public_https_url_is_refused_before_anything_is_sent(url: str) -> None:
    world = World()
    assert "secret" not in world.refuse(url)
    assert world.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        reply(302, location="https://example.com/b.png"),
        reply(404),
        reply(kind="text/html"),
        reply(kind="image/svg+xml"),
        reply(kind=""),
        reply(**{"content-encoding": "zstd"}),
        httpx.ConnectError("no"),
        httpx.ReadTimeout("late"),
    ],
)
def test_what_is_no_image_is_refused_and_no_redirect_is_followed(answer: Any) -> None:
    world = World(answer)
    assert "example.com" in world.refuse(URL)
    assert len(world.requests) == 1


def test_images_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "LARGEST_BYTES", 2 * len(PNG))
    two = [URL, "https://example.com/b"]
    assert World().bring(*two) == [DATA_URL, DATA_URL]
    assert "bytes" in World().refuse(*two, "https://example.com/c")
    assert "at most" in World().refuse(*[f"https://example.com/{number}" for number in range(33)])


def test_images_that_do_not_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "LONGEST_FETCH_S", 0.01)

    class Slow(World):
        async def resolve(self, host: str) -> list[str]:
            await asyncio.Event().wait()
            return []

    assert "within" in Slow().refuse(URL)


def test_ollama_fetches_only_where_it_is_told_to(vendor: Any, run: Any) -> None:
    said = {
        "model": "llava",
        "message": {"role": "assistant", "content": "A duck"},
        "done": True,
        "done_reason": "stop",
    }
    server = vendor(httpx.Response(200, json=said | {"eval_count": 2, "prompt_eval_count": 9}))

    def ollama(**options: Any) -> Ollama:
        client = httpx.AsyncClient(transport=httpx.MockTransport(server))
        return Ollama.init(ProviderConfig(name="ollama", module="ollama", http_client=client, options=options))

    async def story() -> None:
        able = ollama(fetch_images=True)
        world = World()
        able.images = world.images()
        assert (await able.complete(asked(URL))).text == "A duck"
        assert json.loads(server.requests[0].content)["messages"][1]["images"] == [base64.b64encode(PNG).decode()]
        chunks = [chunk async for chunk in able.stream(asked(URL))]
        assert "".join(chunk.delta.content for chunk in chunks) == "A duck"
        world.addresses["example.com"] = ["127.0.0.1"]
        with pytest.raises(InvalidRequest) as refused:
            await able.complete(asked(URL))
        assert (refused.value.provider, refused.value.model) == ("ollama", "llava")
        with pytest.raises(InvalidRequest, match="fetch_images"):
            await ollama().complete(asked(URL))
        assert len(server.requests) == 2

    run(story())
    with pytest.raises(ConfigError, match="fetch_images"):
        ollama(fetch_images="yes")
