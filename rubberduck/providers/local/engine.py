"""The child process that runs a local model: `python -m rubberduck.providers.local.engine`.

Why a process: the engine is C++; its crash must not take the program down. It imports nothing of RubberDuck.

Stdin carries one line of JSON, the settings, and then stays open as a lifeline: when it closes, the parent has gone and
this process ends at once. (While a model loads, the engine holds the interpreter, so the end comes when it has loaded.)
Stdout carries one line of JSON, `{"port": ..., "load_s": ..., "shows_tools": ...}` or `{"error": ...}`; `shows_tools`
says whether the model's template tells it of tools. The engine logs to stderr.
The server listens on loopback only and answers only who knows the key, which came by stdin: arguments and environment
can be read by others.
"""

from __future__ import annotations

import http.client
import importlib
import json
import os
import select
import sys
import threading
import time
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

PARENT_CHECK_S = 1.0
LOG_ERRORS_ONLY = 1
MODELS_OWN = "model"


def main() -> int:
    """Serve until the lifeline is cut; 1 if there is nothing to serve."""
    report = _take_stdout()
    parent = os.getppid()
    settings = json.loads(sys.stdin.buffer.readline() or b"{}")
    lifeline = threading.Thread(target=_end_with_parent, args=(parent,), daemon=True)
    lifeline.start()
    begun = time.monotonic()
    try:
        server = _serve(settings)
    except Exception as error:  # noqa: BLE001 - whatever the engine dislikes becomes a sentence for the parent
        _say(report, {"error": f"{type(error).__name__}: {error}"})
        return 1
    address = server.listening_address
    told = {"load_s": round(time.monotonic() - begun, 3), "shows_tools": _shows_tools(address, settings["key"])}
    _say(report, {"port": urlsplit(address).port} | told)
    lifeline.join()
    return 0


def _take_stdout() -> IO[str]:
    """Keep stdout for our one line: whatever a library prints there goes to stderr instead."""
    own = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(own, "w")


def _say(report: IO[str], line: dict[str, Any]) -> None:
    try:
        print(json.dumps(line), file=report, flush=True)
    except BrokenPipeError:
        pass  # the parent went while the model loaded; the lifeline notices


def _end_with_parent(parent: int) -> None:
    """End this process when stdin closes.

    A program that forks leaves the other end of our stdin open in its fork, so the parent's id is watched as well.
    `os._exit`: the engine's own teardown could wait for a call in flight.
    """
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], PARENT_CHECK_S)
        if readable and not os.read(0, 4096):
            break
    os._exit(0)


def _serve(settings: dict[str, Any]) -> Any:
    xllamacpp: Any = importlib.import_module("xllamacpp")  # its names come from C and are unknown to type checkers
    params = xllamacpp.CommonParams()
    params.model.path = settings["model_path"]
    params.model_alias = {settings["alias"]}
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context_tokens"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
    for name, value in settings.get("sampling", {}).items():
        setattr(params.sampling, name, value)
    params.use_jinja = True
    if template := settings.get("template"):
        params.chat_template = template
    if pooling := settings.get("pooling"):
        params.embedding = True
        params.n_batch = params.n_ubatch = settings["context_tokens"]  # a text is read in one piece, or refused
        if pooling != MODELS_OWN:
            params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling.upper()}")
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [settings["key"]]
    params.cors_origins, params.cors_credentials = "", False
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.offline = True
    params.verbosity = LOG_ERRORS_ONLY
    return xllamacpp.Server(params)


def _shows_tools(address: str, key: str) -> bool:
    """Whether the model's template has a place for tools; taken for granted of an engine that does not say."""
    asked = urllib.request.Request(f"{address}/props", headers={"Authorization": f"Bearer {key}"})  # noqa: S310
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=10) as answer:
            return bool(json.load(answer)["chat_template_caps"]["supports_tools"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return True


if __name__ == "__main__":
    sys.exit(main())
