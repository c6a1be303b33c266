"""The events that RubberDuck tells of, and what each carries.

An event is a tuple of words. Measurements are numbers, metadata says what was measured. Every event's metadata
has `system`, the name of the runtime it comes from. Durations are in nanoseconds.

| event | measurements | metadata beside `system` |
|---|---|---|
| REQUEST_START | system_time | request_id, provider, model |
| REQUEST_STOP | duration | request_id, provider, model, tokens, cost, attempts, cached |
| REQUEST_EXCEPTION | duration | request_id, provider, model, error, message, attempts, spent |
| COST | cost, tokens | provider, model, tenant |
| ATTEMPT_* | duration | request_id, provider, model, outcome |
| RETRY, FALLBACK | delay | request_id, provider, model, reason; fallback: to |
| QUEUE_*, RATE_LIMIT_*, BREAKER_*, CACHE_*, ... | | what the event's name says |

Provider and model of a request that has not been sent are what the caller asked for, provider None.
For each request there is one start, then one stop or one exception; for each settled attempt one cost.
"""

from __future__ import annotations

Event = tuple[str, ...]

_LLM = ("rubber_duck", "llm")

REQUEST_START: Event = (*_LLM, "request", "start")
REQUEST_STOP: Event = (*_LLM, "request", "stop")
REQUEST_EXCEPTION: Event = (*_LLM, "request", "exception")
COST: Event = (*_LLM, "cost")

ATTEMPT_START: Event = (*_LLM, "attempt", "start")
ATTEMPT_STOP: Event = (*_LLM, "attempt", "stop")
ATTEMPT_EXCEPTION: Event = (*_LLM, "attempt", "exception")
STREAM_FIRST_TOKEN: Event = (*_LLM, "stream", "first_token")
STREAM_STOP: Event = (*_LLM, "stream", "stop")
STREAM_INTERRUPTED: Event = (*_LLM, "stream", "interrupted")
RETRY: Event = (*_LLM, "retry")
FALLBACK: Event = (*_LLM, "fallback")
QUEUE_ENQUEUED: Event = (*_LLM, "queue", "enqueued")
QUEUE_DEQUEUED: Event = (*_LLM, "queue", "dequeued")
QUEUE_REJECTED: Event = (*_LLM, "queue", "rejected")
RATE_LIMIT_WAIT: Event = (*_LLM, "rate_limit", "wait")
RATE_LIMIT_REFUSED: Event = (*_LLM, "rate_limit", "refused")
BREAKER_TRANSITION: Event = (*_LLM, "breaker", "transition")
CACHE_HIT: Event = (*_LLM, "cache", "hit")
CACHE_MISS: Event = (*_LLM, "cache", "miss")
LEDGER_WRITTEN: Event = (*_LLM, "ledger", "written")
LEDGER_FAILED: Event = (*_LLM, "ledger", "failed")

ACTOR_STARTED: Event = ("rubber_duck", "actor", "started")
ACTOR_EXITED: Event = ("rubber_duck", "actor", "exited")
SUPERVISOR_RESTARTED: Event = ("rubber_duck", "supervisor", "restarted")
SUPERVISOR_GAVE_UP: Event = ("rubber_duck", "supervisor", "gave_up")
CONFIG_LOADED: Event = ("rubber_duck", "config", "loaded")
CONFIG_REFUSED: Event = ("rubber_duck", "config", "refused")
HANDLER_FAILED: Event = ("rubber_duck", "telemetry", "handler_failed")
"""A handler raised and was detached: handler_id, event, error."""

REQUEST_EVENTS: tuple[Event, ...] = (REQUEST_START, REQUEST_STOP, REQUEST_EXCEPTION)
GUIDE_EVENTS: tuple[Event, ...] = (*REQUEST_EVENTS, COST)
"""What the monitoring example of the design attaches to."""
