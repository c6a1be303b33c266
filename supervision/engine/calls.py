"""What a supervisor answers to start_child, restart_child and the other calls, by what the child is doing.

    call             | unknown   | running        | stopped        | restarting
    -----------------+-----------+----------------+----------------+---------------
    start_child      | start     | AlreadyStarted | AlreadyPresent | AlreadyPresent
    restart_child    | NotFound  | Running        | start          | Restarting
    terminate_child  | NotFound  | stop           | Ok             | call off, Ok
    delete_child     | NotFound  | Running        | forget, Ok     | Restarting
    get_childspec    | NotFound  | spec           | spec           | spec

A child on its way because of an earlier call is none of these: the engine keeps calls for it back until that is done.
"""

from __future__ import annotations

from typing import Any, Final, assert_never

from supervision.engine.roster import Child, Phase, Purpose, Roster
from supervision.engine.vocabulary import (
    AlreadyPresent,
    AlreadyStarted,
    Answer,
    Call,
    ChildInfo,
    CountChildren,
    Counts,
    DeleteChild,
    GetChildSpec,
    MaxChildren,
    NotFound,
    Ok,
    Reconfigure,
    Refused,
    Reply,
    RestartChild,
    Restarting,
    Running,
    StartChild,
    TerminateChild,
    WhichChildren,
)
from supervision.errors import SpecError
from supervision.specs.child import ChildSpec, Kind, Restart, validate_child, validate_children

READS: Final = (WhichChildren, CountChildren, GetChildSpec)


def is_busy_with_call(child: Child) -> bool:
    """True while an earlier call has this child started or stopped."""
    return child.phase in (Phase.STARTING, Phase.STOPPING) and child.purpose is Purpose.CALL


def child_id_of(call: Call) -> str | None:
    """The id of the child that a call would change, None if it is none or several."""
    match call.request:
        case StartChild(spec=spec):
            return spec.id
        case RestartChild(id=child_id) | TerminateChild(id=child_id) | DeleteChild(id=child_id):
            return child_id
        case _:
            return None


def may_start(call: Call) -> tuple[str, ...]:
    """The ids of the children that a call would add."""
    match call.request:
        case StartChild(spec=spec):
            return (spec.id,)
        case Reconfigure(specs=specs):
            return tuple(spec.id for spec in specs)
        case _:
            return ()


class Calls:
    """Carries out the calls to one supervisor on its roster; an answer that must wait is given by the engine."""

    def __init__(self, roster: Roster, max_children: int | None) -> None:
        self._roster = roster
        self._max_children = max_children
        self.is_batch_running = False

    def handle(self, call: Call) -> None:
        """Answer `call`, or begin what will answer it."""
        answer = self._answer(call)
        if answer is not None:
            self._roster.effects.append(Reply(call.token, answer))

    def _answer(self, call: Call) -> Answer | None:
        match call.request:
            case StartChild() as request:
                return self._start_child(request, call.token)
            case RestartChild(id=child_id):
                return self._restart_child(child_id, call.token)
            case TerminateChild(id=child_id):
                return self._terminate_child(child_id, call.token)
            case DeleteChild(id=child_id):
                return self._delete_child(child_id)
            case GetChildSpec(id=child_id):
                child = self._known(child_id)
                return NotFound() if child is None else child.spec
            case WhichChildren():
                return tuple(self._info(child) for child in self._roster.newest_first())
            case CountChildren():
                return self._count()
            case Reconfigure() as request:
                return self._reconfigure(request)
            case _:
                assert_never(call.request)

    def _known(self, child_id: str) -> Child | None:
        child = self._roster.children.get(child_id)
        return None if child is None or child.is_new else child

    def _start_child(self, request: StartChild, token: Any) -> Answer | None:
        spec = request.spec
        child = self._known(spec.id)
        if child is not None:
            return AlreadyStarted(spec.id) if child.phase is Phase.RUNNING else AlreadyPresent()
        if self._max_children is not None and len(self._roster.children) >= self._max_children:
            return MaxChildren()
        try:
            validate_child(spec, self._roster.options)
        except SpecError as error:
            return Refused(str(error))
        child = self._roster.add(spec, request.last_epoch)
        child.is_new = True
        self._roster.start(child, Purpose.CALL, token)
        return None

    def _restart_child(self, child_id: str, token: Any) -> Answer | None:
        child = self._stopped(child_id)
        if not isinstance(child, Child):
            return child
        self._roster.start(child, Purpose.CALL, token)
        return None

    def _terminate_child(self, child_id: str, token: Any) -> Answer | None:
        child = self._known(child_id)
        if child is None:
            return NotFound()
        if child.phase is Phase.STOPPED:
            return Ok()
        if child.phase in (Phase.WAITING, Phase.EXITED):
            self._roster.retire(child)
            self._roster.close_stranded()
            return Ok()
        self._roster.stop(child, Purpose.CALL, token)
        return None

    def _delete_child(self, child_id: str) -> Answer:
        child = self._stopped(child_id)
        if not isinstance(child, Child):
            return child
        self._roster.remove(child)
        return Ok()

    def _stopped(self, child_id: str) -> Child | NotFound | Running | Restarting:
        """The child if it is stopped, else what a call that needs it so is answered."""
        child = self._known(child_id)
        if child is None:
            return NotFound()
        if child.phase is Phase.RUNNING:
            return Running()
        return child if child.phase is Phase.STOPPED else Restarting()

    def _info(self, child: Child) -> ChildInfo:
        return ChildInfo(child.id, self._state(child), Kind(child.spec.kind))

    def _state(self, child: Child) -> str:
        """As if calls under way had not begun; what a batch is about to restart is restarting."""
        if child.phase is Phase.RUNNING:
            return "running"
        if child.is_restarting or child.phase is Phase.EXITED:
            return "restarting"
        if child.phase is Phase.STOPPED:
            return "restarting" if child.is_open and self.is_batch_running else "stopped"
        if child.purpose is Purpose.BATCH:
            return "restarting"
        return "running" if child.phase is Phase.STOPPING and child.verdict is None else "stopped"

    def _count(self) -> Counts:
        known = [child.spec.kind for child in self._roster.newest_first()]
        active = sum(self._state(child) == "running" for child in self._roster.newest_first())
        supervisors = known.count(Kind.SUPERVISOR)
        return Counts(len(known), active, supervisors, len(known) - supervisors)

    def _reconfigure(self, request: Reconfigure) -> Answer:
        roster = self._roster
        listed = {spec.id for spec in request.specs}
        kept = [child for child in roster.children.values() if child.id not in listed]
        try:
            validate_children((*request.specs, *(child.spec for child in kept)), request.options)
        except SpecError as error:
            return Refused(str(error))
        renewed = [self._renewed(spec, request.last_epochs.get(spec.id, 0)) for spec in request.specs]
        roster.children = {child.id: child for child in (*renewed, *kept)}
        roster.options = request.options
        roster.intensity.resize(request.options.max_restarts, request.options.max_seconds)
        return Ok()

    def _renewed(self, spec: ChildSpec, last_epoch: int) -> Child:
        child = self._roster.children.get(spec.id) or self._roster.made(spec, last_epoch)
        is_spent = child.phase is Phase.RUNNING and spec.restart is Restart.TEMPORARY
        child.spec = spec.without_arguments() if is_spent else spec
        self._roster.enter(child, child.phase)
        return child
