"""Three providers of a scenario, in this process or on sockets, and the log that they keep of what they were asked.

Every answer, and every word and number of it, bears the serial number of its request, and so does its usage: what was
delivered, booked and billed can be told apart by it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import re
import threading
import time
import zlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from rubberduck import errors
from rubberduck.config import ProviderConfig
from rubberduck.errors import StreamInterrupted
from rubberduck.providers.base import Provider
from rubberduck.testing import Call, Reply, dialects
from rubberduck.types import (
    Choice,
    Chunk,
    Delta,
    EmbeddingRequest,
    Embeddings,
    FinishReason,
    Message,
    Request,
    Response,
    TokenCount,
    Usage,
)

NAMES = ("p", "q", "r")
KEYS = ("key-0", "key-1", "key-2")
MODELS = {"p": "m", "q": "m", "r": "m2"}
"""Who makes vectors of which model."""
BATCH = 3
"""So many texts go into one request for vectors."""
COUNTED = 1_000_000
"""What a count begins at: no usage and no guess is so large."""

HARMLESS = ("ok", "ok", "ok", "slow", "drip")
FAULTS = ("hang", "cut", "cut", "told", "stall", "429", "429 hint", "529", "500", "400", "filter", "bug", "unsent")
BAD_KEY = ("401", "402")


@dataclass
class Entry:
    """One request as its provider saw it; `ended` is answered, refused or broken.

    `kind` is chat, embeddings or count, `text` what it is about. Of an answer that is wanted in a form, `form` is in
    which it comes: "json", or "prose", which cannot be read; `mends` says that one before it could not be.
    """

    provider: str
    serial: int
    text: str
    key: str
    fault: str
    kind: str
    is_stream: bool
    started: float
    texts: tuple[str, ...] = ()
    form: str = ""
    mends: bool = False
    given: str = ""
    count: int = 4
    usage: tuple[int, int] | None = None
    ended: str = "open"
    spoke_at: float | None = None

    @property
    def words(self) -> list[str]:
        head = f"{self.provider}{self.serial}"
        return [f"{' ' if number else ''}{head}.{number}" for number in range(self.count)]

    @property
    def said(self) -> str:
        """The answer as its text."""
        text = "".join(self.words)
        return json.dumps({"said": text}) if self.form == "json" else text

    def vectors(self, model: str) -> tuple[tuple[float, ...], ...]:
        """The vectors tell of whom they are, of what request, and for what text."""
        return tuple([(mark_of(model), float(self.serial), mark_of(text)) for text in self.texts])

    @property
    def whole(self) -> tuple[int, int]:
        """The usage of the whole answer, which no other one has."""
        return 1000 + self.serial, 0 if self.kind == "embeddings" else self.count

    @property
    def is_refused(self) -> bool:
        return self.ended == "refused"

    def break_off(self) -> None:
        if self.ended == "open":
            self.ended = "broken"


def mark_of(text: str) -> float:
    """A number that stands for a text, in a vector; short floats hold it."""
    return float(zlib.crc32(text.encode()) % 2**24)


class Script:
    """Decides how each request is answered, and keeps the log."""

    def __init__(self, rng: random.Random, badness: float) -> None:
        self.log: list[Entry] = []
        self._rng = rng
        self._badness = badness
        self._lock = threading.Lock()

    def enter(
        self,
        provider: str,
        text: str,
        key: str,
        *,
        kind: str = "chat",
        is_stream: bool = False,
        texts: Sequence[str] = (),
        is_formed: bool = False,
        mends: bool = False,
        given: str = "",
    ) -> Entry:
        with self._lock:
            serial, rng = len(self.log), self._rng
            how = rng.choice(FAULTS if rng.random() < self._badness else HARMLESS)
            if key not in ("", KEYS[0]) and rng.random() < 0.05:
                how = rng.choice(BAD_KEY)
            if given and rng.random() < 0.2:
                how = "400"
            form = rng.choice(["json", "json", "prose"]) if is_formed else ""
            began, count = time.monotonic(), rng.randint(2, 7)
            entry = Entry(
                provider, serial, text, key, how, kind, is_stream, began, tuple(texts), form, mends, given, count
            )
            self.log.append(entry)
            return entry

    def chat(self, provider: str, key: str, turns: Sequence[tuple[str, str]], **more: Any) -> Entry:
        """`turns` are role and text. What stands behind an answer of the model's own mends that."""
        role, last = turns[-1]
        asked = next(text for role, text in turns if role == "user")
        mends = role == "user" and any(role == "assistant" for role, _ in turns)
        return self.enter(provider, asked, key, mends=mends, given=last if role == "assistant" else "", **more)


FAILURES: dict[str, Any] = {
    "429": lambda: errors.RateLimited("slowly", status=429),
    "429 hint": lambda: errors.RateLimited("slowly", status=429, retry_after=0.03),
    "529": lambda: errors.Overloaded("busy", status=529),
    "500": lambda: errors.ServiceUnavailable("broken", status=500),
    "400": lambda: errors.InvalidRequest("no"),
    "401": lambda: errors.AuthenticationFailed("who", status=401),
    "402": lambda: errors.QuotaExceeded("poor", status=402),
    "filter": lambda: errors.ContentFiltered("shame"),
    "unsent": lambda: errors.ServiceUnavailable("unreachable", phase="not_sent"),
}


class Wild(Provider):
    """Answers as the script says, in this process. `q` does not count tokens."""

    script: Script
    embedding_batch = BATCH

    def __init__(self, config: ProviderConfig) -> None:
        self.script = config.options["script"]
        self.name = config.name
        self.offers = frozenset({"chat", "embeddings"} if self.name == "q" else {"chat", "embeddings", "count"})
        self._keys = tuple(key.get_secret_value() for key in config.api_keys) or ("",)
        self.key_names = tuple(f"key {number}" for number in range(1, len(self._keys) + 1))
        self._key = self._keys[0]

    @classmethod
    def init(cls, config: ProviderConfig) -> Wild:
        return cls(config)

    def for_key(self, index: int) -> Wild:
        view = copy.copy(self)
        view._key = self._keys[index]
        return view

    def supports_model(self, model: str) -> bool:
        return True

    def accepts_prefill(self, model: str) -> bool:
        return self.name != "r"

    async def complete(self, request: Request) -> Response:
        entry = self._enter(request)
        await self._say_all(entry)
        entry.ended, entry.usage = "answered", entry.whole
        choice = Choice(0, Message(role="assistant", content=entry.said), FinishReason.STOP)
        return Response("id", request.model, (choice,), Usage(*entry.whole), provider=self.name)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        texts = [text for text in request.input if isinstance(text, str)]
        entry = self.script.enter(self.name, about(texts), self._key, kind="embeddings", texts=texts)
        await self._say_all(entry)
        entry.ended, entry.usage = "answered", entry.whole
        return Embeddings(request.model, entry.vectors(request.model), Usage(*entry.whole), self.name)

    async def count(self, request: Request) -> TokenCount:
        entry = self._enter(request, kind="count")
        await self._say_all(entry)
        entry.ended = "answered"
        return TokenCount(COUNTED + entry.serial, estimated=False)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        entry = self._enter(request, is_stream=True)
        try:
            async for word in self._say(entry):
                entry.spoke_at = entry.spoke_at or time.monotonic()
                yield Chunk(delta=Delta(content=word))
            entry.usage = entry.whole
            yield Chunk(finish_reason=FinishReason.STOP, usage=Usage(*entry.whole))
            entry.ended = "answered"
        except BaseException:
            entry.break_off()
            raise

    def _enter(self, request: Request, **more: Any) -> Entry:
        turns = [(message.role, message.text) for message in request.messages]
        return self.script.chat(self.name, self._key, turns, is_formed=request.response_format is not None, **more)

    async def _say_all(self, entry: Entry) -> None:
        try:
            async for _ in self._say(entry):
                pass
        except BaseException:
            entry.break_off()
            raise

    async def _say(self, entry: Entry) -> AsyncGenerator[str]:
        how = entry.fault
        if how in FAILURES:
            await asyncio.sleep(0.001)
            entry.ended = "refused"
            raise failure_of(how)
        if how in ("hang", "slow"):
            await asyncio.sleep(120 if how == "hang" else 0.05)
        for number, word in enumerate(entry.words):
            if number == entry.count // 2:
                await self._fail_inside(entry)
            await asyncio.sleep(0.01 if how == "drip" else 0)
            yield word

    async def _fail_inside(self, entry: Entry) -> None:
        match entry.fault:
            case "cut":
                raise errors.ServiceUnavailable("gone", phase="uncertain", spent=None)
            case "told":
                entry.usage = None if entry.kind == "count" else (entry.whole[0], entry.whole[1] // 2)
                usage = None if entry.usage is None else Usage(*entry.usage)
                raise StreamInterrupted("gone", usage=usage, spent=None)
            case "stall":
                await asyncio.sleep(120)
            case "bug":
                raise ValueError("a bug of the provider")


def about(texts: Sequence[str]) -> str:
    """What the texts of a request for vectors are about: before the full stop they are all the same."""
    return texts[0].partition(".")[0]


def failure_of(how: str) -> BaseException:
    failure: BaseException = FAILURES[how]()
    return failure


class WildServer:
    """The same on a socket: a behaviour of a fault server."""

    def __init__(self, name: str, script: Script) -> None:
        self._name = name
        self._script = script

    async def answer(self, call: Call, reply: Reply) -> None:
        entry = self._enter(call)
        try:
            await self._play(entry, call, reply)
        finally:
            entry.break_off()

    def _enter(self, call: Call) -> Entry:
        if call.path.endswith("/embeddings"):
            texts = call.json["input"]
            return self._script.enter(self._name, about(texts), call.key, kind="embeddings", texts=texts)
        turns = [(each["role"], _plain(each)) for each in call.json["messages"]]
        is_stream, is_formed = bool(call.json.get("stream")), not _FORMS.isdisjoint(call.json)
        kind = "count" if call.path.endswith("/count_tokens") else "chat"
        return self._script.chat(self._name, call.key, turns, kind=kind, is_stream=is_stream, is_formed=is_formed)

    async def _play(self, entry: Entry, call: Call, reply: Reply) -> None:
        statuses = {"429": 429, "429 hint": 429, "529": 529, "500": 500, "400": 400, "401": 401, "402": 402}
        if entry.fault in statuses:
            status = statuses[entry.fault]
            hint = {"retry-after": "0.03"} if entry.fault == "429 hint" else {}
            body = dialects.error(call.path, status)
            await reply.whole(status, {"content-type": "application/json", **hint}, body)
            entry.ended = "refused"
            return
        if entry.fault == "unsent":
            reply.reset()
            return
        if entry.fault in ("hang", "slow"):
            await reply.wait(120 if entry.fault == "hang" else 0.05)
        blocks = self._blocks(entry, call)
        kind = "text/event-stream" if entry.is_stream else "application/json"
        await reply.head(200, {"content-type": kind})
        for number, block in enumerate(blocks):
            if number == len(blocks) // 2:
                if entry.fault in ("cut", "told"):
                    reply.reset() if entry.fault == "cut" else reply.hang_up()
                    return
                if entry.fault == "stall":
                    await reply.wait()
                if entry.fault == "bug":
                    await reply.body(b"data: {\n\n")
                    return
            if number:
                await reply.wait(0.01 if entry.fault == "drip" else 0)
            await reply.body(block)
            if number:
                entry.spoke_at = entry.spoke_at or time.monotonic()
            if entry.kind == "chat":
                entry.usage = call.usage
        await reply.end()
        if entry.kind == "embeddings":
            entry.usage = entry.whole
        entry.ended = "answered"

    def _blocks(self, entry: Entry, call: Call) -> list[bytes]:
        if entry.is_stream:
            blocks = dialects.events(call.path, "m", entry.said)
            return [_reading(entry, block) for block in blocks]
        whole = self._whole(entry, call)
        return [whole[: len(whole) // 2], whole[len(whole) // 2 :]]

    def _whole(self, entry: Entry, call: Call) -> bytes:
        if entry.kind == "count":
            return json.dumps({"input_tokens": COUNTED + entry.serial}).encode()
        if entry.kind == "embeddings":
            rows = [
                {"index": place, "embedding": vector} for place, vector in enumerate(entry.vectors(call.json["model"]))
            ]
            return json.dumps(
                {"model": call.json["model"], "data": rows, "usage": {"prompt_tokens": entry.whole[0]}}
            ).encode()
        return _reading(entry, dialects.answer(call.path, "m", entry.said))


_FORMS = {"response_format", "output_config", "output_format"}
_READ = re.compile(rb'("(?:prompt|input)_tokens": ?)12\b')


def _reading(entry: Entry, block: bytes) -> bytes:
    """As if the request had been as long as nobody else's."""
    return _READ.sub(rb"\g<1>" + str(entry.whole[0]).encode(), block)


def _plain(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
