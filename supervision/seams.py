"""The private parts of Pykka that this package is built on, and the word about it where a Pykka has moved them.

An actor of ours takes part in Pykka's own construction and start (jodal/pykka src/pykka/_actor.py) and its registry
gets another container (_registry.py). Checked once, at the import: what is missing would else show as a hang.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pykka

NAMES: tuple[tuple[str, str], ...] = (
    ("pykka", "Actor._create_actor_inbox"),
    ("pykka", "Actor._create_future"),
    ("pykka", "Actor._start_actor_loop"),
    ("pykka", "Actor._actor_loop"),
    ("pykka", "Actor._handle_receive"),
    ("pykka", "Actor._handle_failure"),
    ("pykka", "ActorRegistry._actor_refs"),
    ("pykka", "ActorRegistry._actor_refs_lock"),
    ("pykka._introspection", "get_attr_directly"),
    ("pykka._envelope", "Envelope"),
    ("pykka.messages", "_ActorStop"),
    ("pykka.messages", "ProxyCall"),
)

USES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("__init__", ("_create_actor_inbox", "_actor_ref", "actor_urn", "actor_inbox", "actor_stopped")),
    ("start", ("_start_actor_loop", "register")),
)
"""What these methods of `pykka.Actor` must still call or assign, for that is where an actor of ours steps in."""


def check() -> None:
    """Raise ImportError if the installed Pykka lacks something of all this."""
    if gone := [*missing(), *unused()]:
        from importlib import metadata  # not needed, and not cheap, where all is well

        raise ImportError(
            f"supervision is built on the inside of Pykka 4.5, and Pykka {metadata.version('pykka')} has changed it: "
            f"{'; '.join(gone)}. Install 'pykka>=4.5,<4.6'."
        )


def missing() -> Iterator[str]:
    for module, path in NAMES:
        try:
            found: Any = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError):
            yield f"there is no {module}.{path}"


def unused() -> Iterator[str]:
    for method, names in USES:
        function = getattr(pykka.Actor, method)
        known = getattr(function, "__func__", function).__code__.co_names
        yield from (f"pykka.Actor.{method} does not use {name}" for name in names if name not in known)


check()
