"""Keeps the traces of the calls that ended last, for who asks why."""

from __future__ import annotations

import threading

from rubberduck.actors.calls.trace import Trace

KEPT = 1_000


class TraceLog:
    """The last traces by request id; the oldest goes for a new one. From any thread."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._traces: dict[str, Trace] = {}
        self._lock = threading.Lock()

    def keep(self, trace: Trace | None) -> None:
        if trace is None:
            return
        with self._lock:
            self._traces[trace.request_id] = trace
            if len(self._traces) > self._kept:
                del self._traces[next(iter(self._traces))]

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._traces

    def find(self, request_id: str) -> Trace:
        """The trace of a call that ended.

        Raises:
            KeyError: it is not among the last ones.
        """
        trace = self._traces.get(request_id)
        if trace is None:
            raise KeyError(
                f"no call {request_id!r} runs here, nor is it among the last {self._kept} that ended; "
                "traces are not kept for longer, and not beyond the process"
            )
        return trace
