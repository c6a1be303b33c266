"""A provider that costs next to nothing: always the same OpenAI answer, from a process of its own.

    with running() as base_url: ...        # or: python -m benchmarks._upstream

It reads no JSON. It tells a stream by the text `"stream":true` in the request, sent in one write per event.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": ?true')
_USAGE = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29}


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1_700_000_000, "model": "bench"}


def _answer() -> bytes:
    message = {"role": "assistant", "content": "Quack. " * 20}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(_head("chat.completion") | {"choices": [choice], "usage": _USAGE}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _events() -> list[bytes]:
    deltas = [{"role": "assistant", "content": ""}, *[{"content": "Quack. "}] * 20, {}]
    choices = [[{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}] for delta in deltas]
    chunks = [_head("chat.completion.chunk") | {"choices": choice} for choice in choices]
    chunks.append(_head("chat.completion.chunk") | {"choices": [], "usage": _USAGE})
    datas = [b"data: %b\n\n" % data for data in [*(json.dumps(chunk).encode() for chunk in chunks), b"[DONE]"]]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(data), data) for data in datas), b"0\r\n\r\n"]


ANSWER = _answer()
EVENTS = _events()


class _Upstream(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(self._received, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            is_stream = _STREAM.search(self._received, end, whole) is not None
            self._received = self._received[whole:]
            for piece in EVENTS if is_stream else (ANSWER,):
                self._transport.write(piece)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def running() -> Iterator[str]:
    """The base URL of an upstream that runs while the block lasts."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks._upstream"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(_serve())
