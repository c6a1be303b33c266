# rubberduck-llm: supervision
"""OTP-style supervision for Pykka actors.

import supervision as sup

class Counter(sup.Actor):
    def on_start(self): self.n = 0
    async def on_receive(self, message): self.n += message; return self.n

with sup.System("demo") as system:
    system.supervise(sup.ChildSpec("counter", Counter))
    system.whereis("counter").ask(1)
"""

from __future__ import annotations

from supervision import seams  # noqa: F401  (before all else: it says what is wrong with the installed Pykka)
from supervision.actor import Actor
from supervision.clock import Clock, Interruption, TimeLimit, Timer, sleep
from supervision.dynamic import DynamicHandle, DynamicSupervisor, NoSuchCall, dynamic
from supervision.engine.vocabulary import (
    AlreadyPresent,
    Counts,
    MaxChildren,
    NotFound,
    Ok,
    Refused,
    Restarting,
    Running,
    StartError,
)
from supervision.errors import (
    ActorDeadError,
    ActorStuck,
    BlockingInScheduler,
    CannotRun,
    DeadlockError,
    EntryNotJson,
    EventLogError,
    LogInUse,
    MailboxFull,
    MixedKey,
    PoisonMessage,
    SpecError,
    StartFailedError,
    SupervisionError,
    SystemClosed,
)
from supervision.exits import (
    Abandoned,
    Crash,
    Exit,
    FailedToStart,
    Failure,
    ForkLost,
    GaveUp,
    Killed,
    NoProc,
    Normal,
    Reason,
    Shutdown,
    StartFailed,
    StartTimeout,
)
from supervision.future import AskFuture
from supervision.hosting.hosts import Stuck
from supervision.hosting.scheduler import Scheduler
from supervision.links import Exited
from supervision.message import Ask, Reply, ask
from supervision.monitors import Down, Up
from supervision.name import ActorRef
from supervision.partition import NoPartitions, PartitionHandle, PartitionSupervisor, partition
from supervision.registry import AlreadyRegistered, Registry
from supervision.shell import AlreadyStarted, Started
from supervision.specs.child import (
    BRUTAL_KILL,
    DROP_CHILD,
    ESCALATE,
    IGNORE,
    INFINITY,
    RESTARTING,
    AutoShutdown,
    Backoff,
    ChildSpec,
    Kind,
    Mailbox,
    Restart,
    Strategy,
    SupervisorOptions,
    block,
    event_log,
    fresh,
    pause,
    snapshot,
)
from supervision.state.keeping import Kept
from supervision.stopping import Unstopped
from supervision.supervisor import Supervisor, SupervisorHandle, supervisor
from supervision.system import System
from supervision.task_calls import NotACoroutineFunction, RunTask, TasksHandle
from supervision.tasks import TaskSupervisor, tasks
from supervision.view.audit import Finding
from supervision.view.events import Event
from supervision.view.published import Publication, PublishError
from supervision.view.tree import Node, Tree

__all__ = [
    "BRUTAL_KILL",
    "DROP_CHILD",
    "ESCALATE",
    "IGNORE",
    "INFINITY",
    "RESTARTING",
    "Abandoned",
    "Actor",
    "ActorDeadError",
    "ActorRef",
    "ActorStuck",
    "AlreadyPresent",
    "AlreadyRegistered",
    "AlreadyStarted",
    "Ask",
    "AskFuture",
    "AutoShutdown",
    "Backoff",
    "BlockingInScheduler",
    "CannotRun",
    "ChildSpec",
    "Clock",
    "Counts",
    "Crash",
    "DeadlockError",
    "Down",
    "DynamicHandle",
    "DynamicSupervisor",
    "EntryNotJson",
    "Event",
    "EventLogError",
    "Exit",
    "Exited",
    "FailedToStart",
    "Failure",
    "Finding",
    "ForkLost",
    "GaveUp",
    "Interruption",
    "Kept",
    "Killed",
    "Kind",
    "LogInUse",
    "Mailbox",
    "MailboxFull",
    "MaxChildren",
    "MixedKey",
    "NoPartitions",
    "NoProc",
    "NoSuchCall",
    "Node",
    "Normal",
    "NotACoroutineFunction",
    "NotFound",
    "Ok",
    "PartitionHandle",
    "PartitionSupervisor",
    "PoisonMessage",
    "Reason",
    "Publication",
    "PublishError",
    "Refused",
    "Registry",
    "Reply",
    "Restart",
    "Restarting",
    "RunTask",
    "Running",
    "Scheduler",
    "Shutdown",
    "SpecError",
    "StartError",
    "StartFailed",
    "StartFailedError",
    "StartTimeout",
    "Started",
    "Strategy",
    "Stuck",
    "SupervisionError",
    "Supervisor",
    "SupervisorHandle",
    "SupervisorOptions",
    "System",
    "SystemClosed",
    "TaskSupervisor",
    "TasksHandle",
    "TimeLimit",
    "Timer",
    "Tree",
    "Unstopped",
    "Up",
    "ask",
    "block",
    "dynamic",
    "event_log",
    "fresh",
    "partition",
    "pause",
    "sleep",
    "snapshot",
    "supervisor",
    "tasks",
]
