"""The child process that runs a local model: `python -m rubberduck.providers.local_engine`.

Why a process: the engine is C++; its crash must not take the program down. It imports nothing of RubberDuck.

Stdin carries one line of JSON, the settings, and then stays open as a lifeline: when it closes, the parent has gone and
this process ends at once. (While a model loads, the engine holds the interpreter, so the end comes when it has loaded.)
Stdout carries one line of JSON, `{"port": ..., "load_s": ...}` or `{"error": ...}`. The engine logs to stderr.
The server listens on loopback only and answers only who knows the key, which came by stdin: arguments and environment
can be read by others.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import sys
import threading
import time
from typing import IO, Any
from urllib.parse import urlsplit

PARENT_CHECK_S = 1.0
LOG_ERRORS_ONLY = 1


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
    port = urlsplit(server.listening_address).port
    _say(report, {"port": port, "load_s": round(time.monotonic() - begun, 3)})
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
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [settings["key"]]
    params.cors_origins, params.cors_credentials = "", False
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.offline = True
    params.verbosity = LOG_ERRORS_ONLY
    return xllamacpp.Server(params)


if __name__ == "__main__":
    sys.exit(main())
