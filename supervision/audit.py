"""What is wrong with the books of a system at rest: nothing, one hopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pykka

if TYPE_CHECKING:
    from supervision.name import Name
    from supervision.system import System


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should not be, and where."""

    path: str
    why: str


def audit(system: System) -> list[Finding]:
    """Every contradiction between the names, the incarnations and Pykka's registry."""
    names = system.names.all()
    known = {name.path for name in names}
    refs: list[Any] = pykka.ActorRegistry.get_all()
    registered = [ref for ref in refs if getattr(ref, "name", None) in names]
    faults = [Finding(name.path, why) for name in names for why in _faults(name, known)]
    faults += [Finding(ref.path, "registered, but dead") for ref in registered if ref.name.incarnation is None]
    return faults


def _faults(name: Name, known: set[str]) -> list[str]:
    parent, incarnation = name.path.rpartition("/")[0], name.incarnation
    faults = {
        "its supervisor is unknown": bool(parent) and parent not in known,
        "it is dead, and still behind its name": incarnation is not None and incarnation.exit is not None,
        "nobody is behind it, but somebody may take its messages": incarnation is None
        and name.mailbox.lease is not None,
        "its name is closed, and it lives": incarnation is not None and not name.is_open,
        "its name is closed, and messages wait": not name.is_open and len(name.mailbox) > 0,
    }
    return [why for why, is_so in faults.items() if is_so]
