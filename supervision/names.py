"""The names of one system: opened, kept while refs hold them, closed with all below them, and found again."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from supervision.exits import Reason, Shutdown
from supervision.kinds import is_supervisor
from supervision.mailbox import DEFAULT
from supervision.name import ActorRef, Name
from supervision.state.keepers import keeper_for

if TYPE_CHECKING:
    from supervision.specs.child import ChildSpec
    from supervision.system import System


class Names:
    """Paths and the names at them. May be read from any thread; written on the supervisors' loop.

    A forgotten name lives on as long as somebody has a ref to it. What is kept of one that is gone altogether is how
    often there was life below its supervisor, so that no path ever sees one epoch twice: outside, where a zombie may
    still write, the epoch tells who came later.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._names: dict[str, Name] = {}
        self._children: dict[str, dict[str, Name]] = {}
        self._forgotten: weakref.WeakValueDictionary[str, Name] = weakref.WeakValueDictionary()
        self._epochs_gone: dict[str, int] = {}

    def open(self, path: str, actor_class: type[Any], spec: ChildSpec | None = None) -> Name:
        """The name at `path`, made or opened anew. What waits in its mailbox stays, and refs to it work again."""
        mailbox = None if spec is None else spec.mailbox
        name = self.known(path)
        if name is None or not _same_kind(name.actor_class, actor_class):
            name = Name(path, actor_class, mailbox, clock=self._system.clock, system=self._system)
        elif not issubclass(name.actor_class, actor_class):
            name.is_made_by(actor_class)
        self._names[path] = self._children.setdefault(_above(path), {})[path] = name
        name.keeper = keeper_for(None if spec is None else spec.state, name.keeper)
        name.mailbox.spec = mailbox or DEFAULT  # also where the spec before this one had said something else
        name.mailbox.reopen()
        return name

    def known(self, path: str) -> Name | None:
        """The name at `path`, also one that is only known by the refs to it."""
        return self._names.get(path) or self._forgotten.get(path)

    def last_epoch(self, path: str) -> int:
        """The last epoch that there has been at `path`, or a later one; 0 if there has been none."""
        name = self.known(path)
        if name is not None:
            return name.epoch
        epoch = 0
        while path := _above(path):
            epoch = max(epoch, self._epochs_gone.get(path, 0))
        return epoch

    def open_at(self, path: str) -> Name | None:
        """The name at `path` if it takes messages."""
        name = self._names.get(path)
        return name if name is not None and name.is_open else None

    def all(self) -> list[Name]:
        return list(self._names.values())

    def below(self, path: str) -> list[Name]:
        """All names below `path`, each after those below itself."""
        found: list[Name] = []
        for name in list(self._children.get(path, {}).values()):
            found += [*self.below(name.path), name]
        return found

    def close(self, name: Name, reason: Reason, *, forgotten: bool = False) -> None:
        """Close a name and all below it; answer what waits there."""
        for each in [*(self.below(name.path) if is_supervisor(name.actor_class) else ()), name]:
            each.close(reason)
            if forgotten:
                self._forget(each)

    def close_strangers(self, path: str, kept: set[str]) -> None:
        """A supervisor begins anew with the children `kept`: nobody will ever be behind the others' names."""
        for name in list(self._children.get(path, {}).values()):
            if name.path[len(path) + 1 :] not in kept:
                self.close(name, Shutdown(), forgotten=True)

    def _forget(self, name: Name) -> None:
        path, above = name.path, _above(name.path)
        if self._names.pop(path, None) is None:
            return
        self._forgotten[path] = name
        name.keeper = None
        siblings = self._children.get(above, {})
        siblings.pop(path, None)
        if not siblings:
            self._children.pop(above, None)
        gone = max(name.epoch, self._epochs_gone.pop(path, 0))
        self._epochs_gone[above] = max(gone, self._epochs_gone.get(above, 0))


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _same_kind(one: type[Any], other: type[Any]) -> bool:
    return getattr(one, "ref_class", ActorRef) is getattr(other, "ref_class", ActorRef)
