"""The behaviours of a fault server, each a value for its script.

| fault | behaviour |
|---|---|
| F01, F02 | `Status(429, retry_after=2)` once or for ever |
| F03, F04, F23 | `Status(500)`, `Status(503)`, `Status(529)` |
| F05 | `HangUp()` before the headers, by reset or in order |
| F06, F26 | `Silence()` |
| F07 | `Ok(first_token_after=20)` |
| F08, F09 | `Cut(after=3)`, `Stall(after=3)` |
| F10 | `BadChunk(after=3)` |
| F11 | `NoDone()`: no end marker |
| F12, F13 | `ContextExceeded()`; `PolicyRefusal()`, `Filtered()` |
| F14 | `NoPrefill()` |
| F24 | `Flaky(0.4, seed=1)` |
| F25 | `Ok(delay=...)` |
| F27, F28 | `ErrorInside()`, `ErrorInside(after=3)` |
| F29 | `RepeatedUsage()` |
| F30 | `Html(502)` |
| F31, F32 | `OutOfQuota()`, `SpendLimit()`, `ByKey({"key": OutOfQuota()})` |
| F33, F34 | `Ok(piece=1, text="é")`; `Gzip()`, `Gzip(keep=0.5)` |
| F35 | `Redirect("http://...")` |
| F38, F39 | `Endless()`, `Drip()` |
| others | `Raw(...)` replays bytes, `NotHttp(...)`, `Hold()` waits for the test |

`after` counts events of a stream. F36 and F37 need no server: point a client at `https://` of a plain one, or
at a name under `.invalid`.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rubberduck.testing import dialects
from rubberduck.testing.exchange import Behaviour, Call, Reply

TEXT = "Hello from the fault server, duck."

_JSON = {"content-type": "application/json", "request-id": "req_fault", "x-request-id": "req_fault"}
_SSE = {"content-type": "text/event-stream; charset=utf-8", "request-id": "req_fault", "x-request-id": "req_fault"}
_HTML = "<html><head><title>{0}</title></head><body><center><h1>{0} Bad Gateway</h1></center></body></html>"


def _model(call: Call) -> str:
    return str(call.json.get("model", "")) if isinstance(call.json, dict) else ""


def _wants_stream(call: Call) -> bool:
    return isinstance(call.json, dict) and bool(call.json.get("stream"))


@dataclass(frozen=True, slots=True)
class Ok:
    """A whole answer, in the dialect of the request's path, streamed if the request asks for it.

    `body` makes other bytes out of the call. `delay` comes before the headers, `first_token_after` before the
    first event, `between` before each other; seconds. `piece` is the size of the writes of a stream, in bytes.
    `headers` come beside the usual ones.
    """

    text: str = TEXT
    delay: float = 0
    first_token_after: float = 0
    between: float = 0
    piece: int | None = None
    body: Callable[[Call], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def answer(self, call: Call, reply: Reply) -> None:
        if self.delay:
            await reply.wait(self.delay)
        if _wants_stream(call):
            await self._stream(call, reply)
            return
        await reply.whole(
            200,
            {**_JSON, **self.headers},
            self.body(call) if self.body else dialects.answer(call.path, _model(call), self.text),
        )

    async def _stream(self, call: Call, reply: Reply) -> None:
        await reply.head(200, {**_SSE, **self.headers})
        blocks = [self.body(call)] if self.body else dialects.events(call.path, _model(call), self.text)
        for number, block in enumerate(blocks):
            if pause := self.between if number else self.first_token_after:
                await reply.wait(pause)
            size = self.piece or len(block)
            for start in range(0, len(block), size):
                await reply.body(block[start : start + size])
        await reply.end()


@dataclass(frozen=True, slots=True)
class Status:
    """An error in the provider's own form. `retry_after` is in seconds, or the text of the header."""

    status: int
    retry_after: float | str | None = None
    type: str = ""
    code: str | None = None
    message: str = "scripted fault"
    headers: Mapping[str, str] = field(default_factory=dict)

    async def answer(self, call: Call, reply: Reply) -> None:
        extra = {} if self.retry_after is None else {"retry-after": f"{self.retry_after}"}
        body = dialects.error(call.path, self.status, type=self.type, code=self.code, message=self.message)
        await reply.whole(self.status, {**_JSON, **extra, **self.headers}, body)


@dataclass(frozen=True, slots=True)
class ContextExceeded:
    """The prompt is longer than the model reads."""

    async def answer(self, call: Call, reply: Reply) -> None:
        text = "prompt is too long: 250000 tokens > 200000 maximum"
        await Status(400, type="invalid_request_error", code="context_length_exceeded", message=text).answer(
            call, reply
        )


@dataclass(frozen=True, slots=True)
class OutOfQuota:
    """A 429 that no waiting cures; Anthropic says 402."""

    async def answer(self, call: Call, reply: Reply) -> None:
        text = "You exceeded your current quota, please check your plan and billing details."
        status = 402 if dialects.is_anthropic(call.path) else 429
        kind = "billing_error" if status == 402 else "insufficient_quota"
        await Status(status, type=kind, code="insufficient_quota", message=text).answer(call, reply)


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """The limit that the account's owner has set is reached; Anthropic calls it an invalid request."""

    async def answer(self, call: Call, reply: Reply) -> None:
        if dialects.is_anthropic(call.path):
            text = "You have reached your specified API usage limits. You will regain access on 2099-01-01."
            fault = Status(400, message=text)
        else:
            fault = Status(429, code="billing_hard_limit_reached", message="Billing hard limit has been reached.")
        await fault.answer(call, reply)


@dataclass(frozen=True, slots=True)
class PolicyRefusal:
    """A content policy refuses the request with a 400; Anthropic calls it an invalid request, too."""

    async def answer(self, call: Call, reply: Reply) -> None:
        text = "Output blocked by content filtering policy"
        code = "content_policy_violation"
        await Status(400, type="invalid_request_error", code=code, message=text).answer(call, reply)


@dataclass(frozen=True, slots=True)
class Filtered:
    """An answer that a content policy ended: finish_reason content_filter, stop_reason refusal."""

    async def answer(self, call: Call, reply: Reply) -> None:
        def filtered(call: Call) -> bytes:
            body = dialects.answer(call.path, _model(call), "")
            if _wants_stream(call):
                body = b"".join(dialects.events(call.path, _model(call), ""))
            return body.replace(b'"end_turn"', b'"refusal"').replace(b'"stop"', b'"content_filter"')

        await Ok(body=filtered).answer(call, reply)


@dataclass(frozen=True, slots=True)
class NoPrefill:
    """Refuses a conversation that ends with the assistant's own words; answers every other as `then`."""

    then: Behaviour = Ok()

    async def answer(self, call: Call, reply: Reply) -> None:
        messages = call.json.get("messages", []) if isinstance(call.json, dict) else []
        text = "This model does not support assistant message prefill. The conversation must end with a user message."
        refusal = Status(400, type="invalid_request_error", message=text)
        await (refusal if messages and messages[-1].get("role") == "assistant" else self.then).answer(call, reply)


@dataclass(frozen=True, slots=True)
class ByKey:
    """Answers each API key in its own way; those not named as `then`."""

    keys: Mapping[str, Behaviour]
    then: Behaviour = Ok()

    async def answer(self, call: Call, reply: Reply) -> None:
        await self.keys.get(call.key, self.then).answer(call, reply)


@dataclass(frozen=True, slots=True)
class HangUp:
    """The line drops before the headers: by a reset, or closed in order."""

    reset: bool = True

    async def answer(self, call: Call, reply: Reply) -> None:
        reply.reset() if self.reset else reply.hang_up()


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer at all, while the line stays open."""

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.wait()


@dataclass(frozen=True, slots=True)
class Hold:
    """No answer until the test calls `FaultServer.release`; then that of `then`."""

    then: Behaviour = Ok()

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.until_released()
        await self.then.answer(call, reply)


async def _begin(call: Call, reply: Reply, after: int) -> list[bytes]:
    """Send the first events of a stream, or as many thirds of a whole answer; returns what is left."""
    if _wants_stream(call):
        parts = dialects.events(call.path, _model(call), TEXT)
    else:
        body = dialects.answer(call.path, _model(call), TEXT)
        third = len(body) // 3 + 1
        parts = [body[i : i + third] for i in range(0, len(body), third)]
    await reply.head(200, _SSE if _wants_stream(call) else _JSON)
    for part in parts[:after]:
        await reply.body(part)
    return parts[after:]


@dataclass(frozen=True, slots=True)
class Cut:
    """The line drops inside the answer: closed in order, or by a reset. `clean` even ends the body properly."""

    after: int = 3
    reset: bool = False
    clean: bool = False

    async def answer(self, call: Call, reply: Reply) -> None:
        await _begin(call, reply, self.after)
        if self.clean:
            await reply.end()
        else:
            reply.reset() if self.reset else reply.hang_up()


@dataclass(frozen=True, slots=True)
class Stall:
    """The answer stops in the middle, the line stays open. `after=0`: headers, and then nothing."""

    after: int = 3

    async def answer(self, call: Call, reply: Reply) -> None:
        await _begin(call, reply, self.after)
        await reply.wait()


@dataclass(frozen=True, slots=True)
class BadChunk:
    """One event, or the whole answer, is no JSON; the rest is as it should be."""

    after: int = 3

    async def answer(self, call: Call, reply: Reply) -> None:
        rest = await _begin(call, reply, self.after if _wants_stream(call) else 0)
        await reply.body(b'data: {"choices": [{"delta": \n\n')
        for block in rest if _wants_stream(call) else ():
            await reply.body(block)
        await reply.end()


@dataclass(frozen=True, slots=True)
class NoDone:
    """A stream without its end marker (`[DONE]`, `message_stop`), otherwise whole.

    `lingers` leaves the line open after it; `has_usage=False` withholds the event before the marker, too, which is
    OpenAI's usage.
    """

    lingers: bool = False
    has_usage: bool = True

    async def answer(self, call: Call, reply: Reply) -> None:
        missing = 1 if self.has_usage else 2
        count = len(dialects.events(call.path, _model(call), TEXT)) - missing
        await _begin(call, reply, count if _wants_stream(call) else 3)
        await (reply.wait() if self.lingers else reply.end())


@dataclass(frozen=True, slots=True)
class ErrorInside:
    """An error under status 200: as the body, or in a stream after some events."""

    after: int = 0
    status: int = 529
    type: str = ""

    async def answer(self, call: Call, reply: Reply) -> None:
        if not _wants_stream(call):
            await reply.whole(200, _JSON, dialects.error(call.path, self.status, type=self.type))
            return
        await _begin(call, reply, self.after)
        await reply.body(dialects.error_event(call.path, self.status, type=self.type))
        await reply.end()


@dataclass(frozen=True, slots=True)
class RepeatedUsage:
    """A stream whose usage comes three times, smaller numbers first; only the last counts."""

    async def answer(self, call: Call, reply: Reply) -> None:
        def repeated(call: Call) -> bytes:
            blocks = dialects.events(call.path, _model(call), TEXT)
            less = dialects.events(call.path, _model(call), TEXT.split(" ", maxsplit=1)[0])[-2]
            return b"".join([*blocks[:-2], less, *blocks[-2:-1], *blocks[-2:]])

        await Ok(body=repeated if _wants_stream(call) else None).answer(call, reply)


@dataclass(frozen=True, slots=True)
class Html:
    """The error page of some proxy on the way."""

    status: int = 502

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.whole(self.status, {"content-type": "text/html"}, _HTML.format(self.status).encode())


@dataclass(frozen=True, slots=True)
class Redirect:
    """Sends the client elsewhere."""

    location: str
    status: int = 307

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.whole(self.status, {"location": self.location}, b"")


@dataclass(frozen=True, slots=True)
class Gzip:
    """A whole answer, compressed. `keep` below 1 leaves only that part of it; `bomb` unfolds to so many bytes."""

    text: str = TEXT
    keep: float = 1.0
    bomb: int = 0

    async def answer(self, call: Call, reply: Reply) -> None:
        body = dialects.answer(call.path, _model(call), self.text)
        if _wants_stream(call):
            body = b"".join(dialects.events(call.path, _model(call), self.text))
        squeeze = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        parts = [squeeze.compress(bytes(1_000_000)) for _ in range(self.bomb // 1_000_000)]
        packed = b"".join([*parts, squeeze.compress(body), squeeze.flush()])
        headers = (_SSE if _wants_stream(call) else _JSON) | {"content-encoding": "gzip"}
        await reply.whole(200, headers, packed[: int(len(packed) * self.keep)])


@dataclass(frozen=True, slots=True)
class Endless:
    """A body that never ends, as fast as the client reads."""

    block: bytes = b"data: " + b"x" * 65_000

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(200, _SSE if _wants_stream(call) else _JSON)
        while True:
            await reply.body(self.block)
            await reply.wait(0)


@dataclass(frozen=True, slots=True)
class Drip:
    """One byte at a time: never idle, never done."""

    interval: float = 0.05

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(200, _SSE if _wants_stream(call) else _JSON)
        while True:
            await reply.body(b":" if _wants_stream(call) else b" ")
            await reply.wait(self.interval)


@dataclass(frozen=True, slots=True)
class Raw:
    """Any answer, its body in pieces of `chunk_size` bytes: to replay what was recorded."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunk_size: int | None = None

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(self.status, self.headers)
        size = self.chunk_size or len(self.body) or 1
        for start in range(0, len(self.body), size):
            await reply.body(self.body[start : start + size])
        await reply.end()


@dataclass(frozen=True, slots=True)
class NotHttp:
    """Bytes that are no HTTP response."""

    data: bytes = b"SSH-2.0-duck\r\n\r\n"

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.raw(self.data)
        reply.hang_up()


@dataclass(slots=True)
class Flaky:
    """Fails at random, the same way for the same seed; otherwise answers as `then`."""

    rate: float
    seed: int = 0
    fault: Behaviour = field(default_factory=lambda: Status(500))
    then: Behaviour = field(default_factory=Ok)
    _rng: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    async def answer(self, call: Call, reply: Reply) -> None:
        await (self.fault if self._rng.random() < self.rate else self.then).answer(call, reply)
