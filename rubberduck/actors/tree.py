"""The supervision tree of a RubberDuck, as child specs.

root                             one_for_one
├─ cost_tracker                  the ledger; first up, last down
├─ jobs                          durable jobs, where configured
├─ shared_limits                 leases of limits shared with other processes, where configured
├─ providers                     a provider that keeps crashing is paused, it never takes the others down
│  └─ provider:<name>            one_for_one
│     ├─ rate_limiter:<name>
│     ├─ circuit_breaker:<name>
│     └─ what the provider itself needs, such as a local engine
├─ request_queue
├─ calls                         one temporary task per call in flight
├─ service
└─ deliveries                    makes durable jobs calls, where configured
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import supervision as sup
from rubberduck.actors.board import ProviderDesk
from rubberduck.actors.calls import reports
from rubberduck.actors.calls.runner import CallRunner
from rubberduck.actors.calls.wire import listen_to
from rubberduck.actors.circuit_breaker import CircuitBreakerActor
from rubberduck.actors.cost_tracker import CostTrackerActor
from rubberduck.actors.deliveries import Deliveries, DeliveryActor, DeliveryOptions
from rubberduck.actors.fence import Fence
from rubberduck.actors.jobs import JobsActor
from rubberduck.actors.office import Office
from rubberduck.actors.rate_limiter import RateLimiterActor
from rubberduck.actors.request_queue import RequestQueueActor
from rubberduck.actors.route_limits import RouteLimits
from rubberduck.actors.service import ServiceActor
from rubberduck.actors.shared_limits import Leases, SharedLimitsActor
from rubberduck.config import Config
from rubberduck.config.sections import JobsConfig, RetryConfig
from rubberduck.core.breaker import Event
from rubberduck.core.budget import BudgetOptions, Budgets
from rubberduck.core.pricing import to_pico
from rubberduck.core.request_queue import QueueOptions
from rubberduck.errors import CallInterrupted
from rubberduck.storage.jobs import SqliteJobs

IDEMPOTENT = sup.Mailbox(redeliver=3)
"""All messages between our actors carry an id and may be handled twice, so one in flight at a crash comes back."""

MISUNDERSTOOD = (TypeError,)
"""What a TaskSupervisor raises over a message that it does not know: no reason to end all calls."""

_REST = sup.pause(1.0)
"""What a provider that keeps crashing is given before it is started again."""


def children(
    config: Config,
    office: Office,
    runner: CallRunner,
    open_ledger: Callable[[], Any],
    on_breaker_event: Callable[[str, str, Event], object],
    open_jobs: Callable[[], SqliteJobs],
) -> list[sup.ChildSpec]:
    """The children of the root, in the order of their start."""
    limits = _limits(config)
    providers = [_provider(desk, limits, on_breaker_event, office.leases) for desk in office.board.desks.values()]
    board = office.board
    deliveries = None if config.jobs is None else Deliveries(office, _delivery_options(config.jobs, config.retry))

    def is_blocked(route: str) -> bool:
        return board.is_blocked(route, office.now())

    return [
        sup.ChildSpec(
            "cost_tracker",
            CostTrackerActor,
            args=(open_ledger,),
            kwargs={"price": office.price_of, **_budgets(config, office)},
            mailbox=IDEMPOTENT,
        ),
        *([] if config.jobs is None or deliveries is None else [_jobs(config.jobs, deliveries, open_jobs)]),
        *([] if office.leases is None else [_shared_limits(office.leases)]),
        sup.supervisor("providers", *providers, **limits, on_exhausted=_REST),
        sup.ChildSpec(
            "request_queue",
            RequestQueueActor,
            args=(_queue_options(config), board.slots_of, is_blocked, RouteLimits(board)),
            mailbox=IDEMPOTENT,
        ),
        replace(sup.tasks("calls", lost=_lost_call), mailbox=IDEMPOTENT, expected_errors=MISUNDERSTOOD),
        sup.ChildSpec(
            "service",
            ServiceActor,
            args=(runner,),
            kwargs={"default_timeout": config.timeout, "keeper": None if config.jobs is None else office.jobs},
            mailbox=IDEMPOTENT,
        ),
        *([] if deliveries is None else [_deliveries(deliveries, office, runner)]),
    ]


def _budgets(config: Config, office: Office) -> dict[str, Any]:
    """What the tracker is told of budgets; nothing where there are none."""
    if not config.budgets:
        return {}

    def publish(budgets: Budgets) -> None:
        office.budgets = budgets

    options = {tenant: BudgetOptions(to_pico(each.limit), each.per) for tenant, each in config.budgets.items()}
    tell = functools.partial(reports.budget_event, office.system.name)
    return {"budgets": options, "fence": Fence(), "publish": publish, "on_budget_event": tell}


def _shared_limits(leases: Leases) -> sup.ChildSpec:
    return sup.ChildSpec("shared_limits", SharedLimitsActor, args=(leases,), mailbox=IDEMPOTENT)


def _jobs(config: JobsConfig, deliveries: Deliveries, open_jobs: Callable[[], SqliteJobs]) -> sup.ChildSpec:
    options = {"lease": config.lease, "keep": config.keep, "on_ready": deliveries.wake}
    return sup.ChildSpec("jobs", JobsActor, args=(open_jobs,), kwargs=options, mailbox=IDEMPOTENT)


def _delivery_options(config: JobsConfig, retry: RetryConfig) -> DeliveryOptions:
    return DeliveryOptions(config.lease, config.max_deliveries, config.max_running, config.expire, retry.base_delay)


def _deliveries(deliveries: Deliveries, office: Office, runner: CallRunner) -> sup.ChildSpec:
    arguments = (office, deliveries, deliveries.options)
    return sup.ChildSpec("deliveries", DeliveryActor, args=arguments, kwargs={"new_id": runner.new_id})


def _limits(config: Config) -> dict[str, Any]:
    return {"max_restarts": config.supervision.max_restarts, "max_seconds": config.supervision.max_seconds}


def _provider(
    desk: ProviderDesk,
    limits: dict[str, Any],
    on_breaker_event: Callable[[str, str, Event], object],
    leases: Leases | None,
) -> sup.ChildSpec:
    listen_to(desk.provider)
    limiter = sup.ChildSpec(
        f"rate_limiter:{desk.name}",
        RateLimiterActor,
        args=(desk.name, desk.limiter_options),
        kwargs={
            "keys": len(desk.keys.names),
            "publish": desk.limiters.__setitem__,
            "concurrency_of": desk.concurrency_of,
            "sharing": None if leases is None else functools.partial(leases.of, desk.name),
        },
        mailbox=IDEMPOTENT,
    )
    breaker = sup.ChildSpec(
        f"circuit_breaker:{desk.name}",
        CircuitBreakerActor,
        args=(desk.breaker_options,),
        kwargs={
            "publish": desk.breakers.__setitem__,
            "forget": desk.forget,
            "on_event": functools.partial(on_breaker_event, desk.name),
        },
        mailbox=IDEMPOTENT,
    )
    return sup.supervisor(
        f"provider:{desk.name}", limiter, breaker, *desk.provider.children(), **limits, on_exhausted=_REST
    )


def _queue_options(config: Config) -> QueueOptions:
    queue = config.queue
    bounds = {name: bound for name, bound in dict(queue.max_per_class).items() if bound is not None}
    return QueueOptions(
        max_queue_size=config.max_queue_size,
        max_per_class=bounds or None,
        max_per_tenant=queue.max_per_tenant,
        max_tokens=queue.max_tokens,
        when_full=queue.when_full,
        weights=dict(queue.weights),
        tenants=queue.tenants,
        adaptive_lifo={name: time for name, time in dict(queue.adaptive_lifo).items() if time is not None},
        service_quantile=queue.service_quantile,
    )


def _lost_call(reason: sup.Exit | Any) -> CallInterrupted:
    return CallInterrupted(f"the call was lost inside RubberDuck ({reason}); it may have been sent", spent=None)
