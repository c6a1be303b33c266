"""A Pykka proxy on a name: it holds the ref only, so it survives restarts and pins no dead actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pykka
from pykka import messages

if TYPE_CHECKING:
    from supervision.name import ActorRef


class NamedProxy:
    """`proxy.method(...)` asks, `proxy.method.defer(...)` tells, `proxy.attribute` asks for it.

    What is callable or traversable is read from the actor's class. An unknown attribute is an
    AttributeError in the reply, and no crash.
    """

    def __init__(self, ref: ActorRef, attr_path: tuple[str, ...] = (), looks_like: Any = None) -> None:
        self.actor_ref = ref
        self._attr_path = attr_path
        self._looks_like = ref.actor_class if looks_like is None else looks_like

    def __repr__(self) -> str:
        return f"<NamedProxy for {self.actor_ref}, attr_path={self._attr_path!r}>"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NamedProxy) and self.actor_ref is other.actor_ref and self._attr_path == other._attr_path
        )

    def __hash__(self) -> int:
        return hash((id(self.actor_ref), self._attr_path))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{self!r} does not give out the private attribute {name!r}")
        path = (*self._attr_path, name)
        known = getattr(self._looks_like, name, None)
        if getattr(known, "_pykka_traversable", False) or getattr(known, "pykka_traversable", False):
            return NamedProxy(self.actor_ref, path, known)
        if callable(known):
            return pykka.CallableProxy(actor_ref=self.actor_ref, attr_path=path)
        return self.actor_ref.ask(messages.ProxyGetAttr(attr_path=path), block=False)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "actor_ref" or name.startswith("_"):
            super().__setattr__(name, value)
            return
        self.actor_ref.ask(messages.ProxySetAttr(attr_path=(*self._attr_path, name), value=value))
