"""How an actor comes to be and meets the incarnation it belongs to."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import pykka
from pykka import messages
from pykka._introspection import get_attr_directly

from supervision.specs import handlers

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation

building: contextvars.ContextVar[Incarnation | None] = contextvars.ContextVar("supervision.building", default=None)
"""The incarnation that an actor under construction belongs to."""


def construct(incarnation: Incarnation, make: Any) -> pykka.Actor:
    """Call `make` on the incarnation's host and see to it that what it makes lives there, and only there.

    Raises:
        TypeError: it makes no actor, or one of another life.
        SpecError: it makes an actor whose handlers cannot work.
    """
    token = building.set(incarnation)
    try:
        actor = make()
    finally:
        building.reset(token)
    path = incarnation.name.path
    if not isinstance(actor, pykka.Actor):
        raise TypeError(f"the factory of {path} made {type(actor).__name__}, which is no pykka.Actor")
    own = actor.__dict__.get("_incarnation")
    if own is not incarnation:
        raise TypeError(_why_not_ours(path, actor, own))
    handlers.check(type(actor))
    incarnation.name.is_made_by(type(actor))
    return actor


def _why_not_ours(path: str, actor: pykka.Actor, own: Any) -> str:
    """What is wrong with an actor that did not meet its incarnation when it was made."""
    kind = type(actor).__name__
    if isinstance(actor, pykka.ThreadingActor) and not hasattr(actor, "owe"):
        return f"the factory of {path} made {kind}, a ThreadingActor: put its class into the spec, or a partial of it"
    if own is not None:
        return f"the factory of {path} made {kind}, but first another actor, which has taken its place"
    return f"{kind}.__init__ must call super().__init__()"


def asks_for_nothing(actor: pykka.Actor, message: Any) -> bool:
    """True for a proxy's message that names an attribute which the actor does not have."""
    if not isinstance(message, messages.ProxyCall | messages.ProxyGetAttr):
        return False
    try:
        get_attr_directly(actor, message.attr_path)
    except AttributeError:
        return True
    return False
