"""Which keeper the `state` of a child spec asks for."""

from __future__ import annotations

from supervision.specs.child import EventLog, Snapshot, StateSpec
from supervision.state.event_logs import LogKeeper
from supervision.state.keeping import Keeper
from supervision.state.snapshots import SnapshotKeeper


def keeper_for(spec: StateSpec | None, present: Keeper | None) -> Keeper:
    """Who keeps the state of a name from now on: the present one, unless another kind of keeping is asked for."""
    if isinstance(spec, Snapshot):
        wanted: type[Keeper] = SnapshotKeeper
    else:
        wanted = LogKeeper if isinstance(spec, EventLog) else Keeper
    if present is None or type(present) is not wanted or not present.goes_on_with(spec):
        return wanted(spec)
    present.spec = spec
    return present
