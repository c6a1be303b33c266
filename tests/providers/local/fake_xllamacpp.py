"""Stands in for the engine's package in a child process: serves fixed answers, and fails as its model's name says."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any


class CommonParams(SimpleNamespace):
    def __init__(self) -> None:
        super().__init__(model=SimpleNamespace(path=""), cpuparams=SimpleNamespace())
        self.cpuparams_batch, self.sampling = SimpleNamespace(), SimpleNamespace()


llama_pooling_type = SimpleNamespace(**{f"LLAMA_POOLING_TYPE_{word}": word.lower() for word in ("MEAN", "CLS", "LAST")})


class Server:
    def __init__(self, params: Any) -> None:
        print("a line that must not reach the report", flush=True)
        if "chatty" in params.model.path:
            sys.stderr.write("noise " * 200_000)
        if "abort" in params.model.path:
            os.abort()
        if "refuse" in params.model.path:
            print("0.00.001 E load: error loading model: it is broken", file=sys.stderr, flush=True)
            raise RuntimeError("Failed to init server")
        if "slow" in params.model.path:
            time.sleep(300)
        self._server = ThreadingHTTPServer((params.hostnames[0], params.port), _Handler)
        self._server.params = params  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def listening_address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        shows_tools = "toolless" not in self.server.params.model.path  # type: ignore[attr-defined]
        self._answer(200, {"chat_template_caps": {"supports_tools": shows_tools}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {self.server.params.api_keys[0]}":  # type: ignore[attr-defined]
            return self._answer(401, {"error": {"message": "Invalid API Key", "code": 401}})
        if self.path == "/v1/chat/completions/input_tokens":
            return self._answer(200, {"input_tokens": len(json.dumps(body["messages"]))})
        if self.path == "/v1/embeddings":
            vectors = [{"index": at, "embedding": [at, len(text)]} for at, text in enumerate(body["input"])]
            return self._answer(200, {"model": "fake", "data": vectors[::-1], "usage": {"prompt_tokens": 3}})
        question = body["messages"][-1]["content"]
        if question == "call":
            return self._answer(200, _head("chat.completion") | {"choices": [_called()]})
        if question == "die":
            os._exit(9)
        if question == "too long":
            error = {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 3031, "n_ctx": 2048}
            return self._answer(400, {"error": error | {"message": "request exceeds the available context size"}})
        if body.get("stream"):
            return self._stream(question)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(body)}}
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        return self._answer(200, _head("chat.completion") | {"choices": [choice], "usage": usage})

    def _stream(self, question: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
        for word in ("one", " two"):
            self._event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
            if question == "die midway":
                os._exit(9)
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, fields: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(_head("chat.completion.chunk") | fields).encode() + b"\n\n")
        self.wfile.flush()

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:  # as it was asked to; unsaid, the next call would be sent into a closing socket
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)


def _called() -> dict[str, Any]:
    content = json.dumps({"name": "f", "arguments": {"x": 1}})
    return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": "fake"}
