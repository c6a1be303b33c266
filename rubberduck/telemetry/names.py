"""The events that RubberDuck tells of, and what each carries.

An event is a tuple of words. Measurements are numbers, metadata says what was measured. Every event's metadata
has `system`, the name of the runtime it comes from. Durations are in nanoseconds.

| event | measurements | metadata beside `system` |
|---|---|---|
| REQUEST_START | system_time | request_id, provider, model |
| REQUEST_STOP | duration | request_id, provider, model, tokens, cost, attempts, cached, shared |
| REQUEST_EXCEPTION | duration | request_id, provider, model, error, message, attempts, spent |
| COST | cost, tokens | provider, model, tenant |
| ATTEMPT_STOP | duration | request_id, provider, model, outcome |
| RETRY, FALLBACK | delay | request_id, provider, model, reason; fallback: to |
| HEDGE | delay | request_id, provider, model, to |
| QUEUE_REJECTED | | request_id, model, reason, retry_after |
| BREAKER_TRANSITION | | provider, model, event |
| KEY_QUARANTINED | duration, times | provider, key, model, reason, status |
| SHARED | | request_id, model, flight |
| CACHE_HIT, CACHE_MISS | | request_id, model |
| BUDGET_WARNING, BUDGET_EXCEEDED | limit, spent, held | tenant, per, resets_at |
| SHARED_LIMITS_LOST, SHARED_LIMITS_FOUND | found: nodes | |
| LEDGER_FAILED | | subject, error |

Provider and model of a request that has not been sent are what the caller asked for, provider None.
A budget tells at most once in a period that 80 % are spent, and that an attempt was refused; amounts are USD.
For each request there is one start, then one stop or one exception; for each settled attempt one cost. What is sent for
several requests at once has an id of its own, which SHARED calls `flight`.
"""

from __future__ import annotations

Event = tuple[str, ...]

_LLM = ("rubber_duck", "llm")

REQUEST_START: Event = (*_LLM, "request", "start")
REQUEST_STOP: Event = (*_LLM, "request", "stop")
REQUEST_EXCEPTION: Event = (*_LLM, "request", "exception")
COST: Event = (*_LLM, "cost")

ATTEMPT_STOP: Event = (*_LLM, "attempt", "stop")
RETRY: Event = (*_LLM, "retry")
FALLBACK: Event = (*_LLM, "fallback")
HEDGE: Event = (*_LLM, "hedge")
QUEUE_REJECTED: Event = (*_LLM, "queue", "rejected")
BREAKER_TRANSITION: Event = (*_LLM, "breaker", "transition")
KEY_QUARANTINED: Event = (*_LLM, "key", "quarantined")
SHARED: Event = (*_LLM, "shared")
CACHE_HIT: Event = (*_LLM, "cache", "hit")
CACHE_MISS: Event = (*_LLM, "cache", "miss")
BUDGET_WARNING: Event = (*_LLM, "budget", "warning")
BUDGET_EXCEEDED: Event = (*_LLM, "budget", "exceeded")
SHARED_LIMITS_LOST: Event = (*_LLM, "shared_limits", "lost")
SHARED_LIMITS_FOUND: Event = (*_LLM, "shared_limits", "found")
LEDGER_FAILED: Event = (*_LLM, "ledger", "failed")

HANDLER_FAILED: Event = ("rubber_duck", "telemetry", "handler_failed")
"""A handler raised and was detached: handler_id, event, error."""

REQUEST_EVENTS: tuple[Event, ...] = (REQUEST_START, REQUEST_STOP, REQUEST_EXCEPTION)
GUIDE_EVENTS: tuple[Event, ...] = (*REQUEST_EVENTS, COST)
"""What the monitoring example of the design attaches to."""
