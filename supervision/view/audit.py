"""What contradicts itself in the books of a system: nothing, one hopes.

The books are kept by many threads, each a step ahead of another, so that one look may see a contradiction which is
gone a moment later: an actor that was born is not yet in its supervisor's list, one that died is still in Pykka's
registry. That is why a finding must be there, of the same incarnation, at each of several looks within a quarter of
a second; where nothing is suspicious the first look is the only one. On a scheduler thread nobody can wait: there
the books must be at rest, or every finding of the first look is told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pykka

from supervision.hosting.scheduler import on_scheduler_thread
from supervision.kinds import is_supervisor

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import Name
    from supervision.shell import Shell
    from supervision.system import System


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be, and where."""

    path: str
    why: str


LOOKS = 6
PAUSE = 0.05
"""Seconds between two looks."""

Suspicion = tuple[Finding, object]
"""A finding, and which incarnation or thing it is of: only the same one twice is the same."""


def audit(system: System) -> list[Finding]:
    """Every contradiction between names, incarnations, supervisors, timers and registries."""
    if system.stopping.is_forked:  # nobody lives in the child of a fork, and its books are those of the parent
        return []
    suspicions = dict.fromkeys(_look(system))
    for _ in range(0 if on_scheduler_thread() else LOOKS - 1):
        if not suspicions:
            break
        time.sleep(PAUSE)
        again = set(_look(system))
        suspicions = dict.fromkeys(each for each in suspicions if each in again)
    return [finding for finding, _ in suspicions]


def _look(system: System) -> Iterator[Suspicion]:
    names = {name.path: name for name in system.names.all()}
    for name in names.values():
        yield from _of_name(name)
        yield from _of_life(system, names, name)
        yield from _of_supervisor(name)
    for zombie in system.zombies[:]:
        yield from _of_zombie(zombie)
    yield from _of_pykka(system, names)
    for finding in system.registry.stale():
        yield finding, finding


def _tell(path: str, of: object, faults: dict[str, bool]) -> Iterator[Suspicion]:
    """Those of the faults that are so."""
    for why, is_so in faults.items():
        if is_so:
            yield Finding(path, why), of


def _of_name(name: Name) -> Iterator[Suspicion]:
    life, mailbox = name.incarnation, name.mailbox
    lease = mailbox.lease
    waiting = len(mailbox)
    yield from _tell(
        name.path,
        (name.urn, name.epoch),
        {
            "its name is closed, and it lives": life is not None and life.exit is None and not name.is_open,
            f"its name is closed, and {waiting} messages wait that nobody will answer": waiting > 0
            and not name.is_open,
            "nobody is behind it, and somebody may take its messages": life is None and lease is not None,
            "double lease: somebody else than who is behind it may take its messages": life is not None
            and life.exit is None
            and lease is not None
            and lease is not life.lease,
            "it lives, and may not take its messages": life is not None and life.exit is None and lease is None,
        },
    )
    if life is not None and life.exit is not None:
        yield Finding(name.path, "it is dead, and still behind its name"), life
        yield from _of_dead(life)


def _of_dead(life: Incarnation) -> Iterator[Suspicion]:
    """What an incarnation whose exit has been reported has left undone."""
    owed, in_hand = len(life.work.owed), len(life.work.unfinished)
    yield from _tell(
        life.name.path,
        life,
        {
            f"incarnation {life.epoch} has ended, and {owed} replies that it owed are not answered": owed > 0,
            f"incarnation {life.epoch} has ended, and {in_hand} messages in its hands are not answered": in_hand > 0,
            f"incarnation {life.epoch} has ended, and {len(life.at_end)} timers or monitors of it are still held": bool(
                life.at_end
            ),
        },
    )


def _of_life(system: System, names: dict[str, Name], name: Name) -> Iterator[Suspicion]:
    """Whether somebody supervises who is there, or will put somebody there."""
    life, parent = name.incarnation, names.get(name.path.rpartition("/")[0])
    if "/" not in name.path:
        if all(root.name is not name for root in system.roots[:]):
            yield Finding(name.path, "orphan: the system does not know this root"), (name.urn, name.epoch)
        return
    if life is not None and life.exit is None:
        yield from _tell(name.path, life, dict.fromkeys(_why_orphan(life, parent), True))
    elif name.is_open and not _is_expected(name, parent):
        yield Finding(name.path, "its name is open, and nobody will ever be behind it"), (name.urn, name.epoch)


def _why_orphan(life: Incarnation, parent: Name | None) -> Iterator[str]:
    above = None if parent is None else parent.incarnation
    if above is None or above.exit is not None:
        yield "orphan: it lives, and its supervisor does not"
        return
    shell = _shell(above)
    if shell is None:
        return
    known = shell.live.get(_id(life))
    if known is None:
        yield "orphan: it lives, and its supervisor does not know it"
    elif known.incarnation is not life:
        yield f"two lives: its supervisor knows incarnation {known.epoch}, and behind the name is {life.epoch}"


def _is_expected(name: Name, parent: Name | None) -> bool:
    """Whether somebody is about to be behind an open name."""
    if parent is None:
        return False
    shell = _shell(parent.incarnation)
    if shell is None:
        return parent.is_open  # it is being restarted, and its children with it
    child = shell.engine.look(name.path.rpartition("/")[2])
    return child is not None and (child.phase != "stopped" or shell.engine.is_replacing)


def _of_supervisor(name: Name) -> Iterator[Suspicion]:
    """What a supervisor holds of children that are gone."""
    shell = _shell(name.incarnation) if is_supervisor(name.actor_class) else None
    if shell is None:
        return
    for key in list(shell.timers):
        child = shell.engine.look(str(key[1])) if key[0] != "stop_all" else None
        is_stale = key[0] != "stop_all" and (child is None or child.timer != key)
        yield from _tell(f"{name.path}/{key[1]}", key, {f"a timer ({key[0]}) is held for a dead incarnation": is_stale})
    for life in list(shell.live.values()):
        incarnation = life.incarnation
        if incarnation is not None and incarnation.exit is not None:
            yield Finding(incarnation.name.path, "it is dead, and its supervisor takes it for alive"), incarnation
            yield from _of_dead(incarnation)


def _of_zombie(zombie: Incarnation) -> Iterator[Suspicion]:
    path = zombie.name.path
    yield from _tell(
        path,
        zombie,
        {
            "a zombie may still take messages": zombie.name.mailbox.lease is zombie.lease,
            "a zombie is still behind its name": zombie.name.incarnation is zombie,
            "it is listed as a zombie, and its code has ended": not zombie.has_code_running,
        },
    )
    yield from _of_dead(zombie)


def _of_pykka(system: System, names: dict[str, Name]) -> Iterator[Suspicion]:
    refs: list[Any] = pykka.ActorRegistry.get_all()
    for ref in refs:
        name = getattr(ref, "name", None)
        if name is None or getattr(name, "system", None) is not system:
            continue
        life = name.incarnation
        yield from _tell(
            name.path,
            (name.urn, name.epoch),
            {
                "it is in Pykka's registry, and dead": life is None or life.exit is not None,
                "it is in Pykka's registry, and its name is not in the system": names.get(name.path) is not name,
            },
        )


def _shell(incarnation: Incarnation | None) -> Shell | None:
    shell: Shell | None = getattr(incarnation.actor, "shell", None) if incarnation is not None else None
    return shell


def _id(life: Incarnation) -> str:
    return life.name.path.rpartition("/")[2]
