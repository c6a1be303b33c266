"""The vendors: each module turns our requests into one vendor's bytes, and its bytes into our answers.

`resolve` finds a provider's class by what the configuration calls it.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from rubberduck.config import BUILT_IN_MODULES, ENTRY_POINT_GROUP
from rubberduck.errors import ConfigError

if TYPE_CHECKING:
    from rubberduck.providers.base import Provider


def resolve(module: str | type) -> type[Provider]:
    """The provider class for a word, an entry point's name, a path "package.module:Class", or a class itself.

    Built-in words win over entry points. Only the module that is asked for is imported.

    Raises:
        ConfigError: there is no such class, or it is no provider.
    """
    found = module if isinstance(module, type) else _find(module)
    from rubberduck.providers.base import Provider  # imports the HTTP client, which a mere look at words needs not

    if not (isinstance(found, type) and issubclass(found, Provider)):
        raise ConfigError(
            f"module {module!r} is no provider: it must be a subclass of rubberduck.providers.base.Provider"
        )
    return found


def installed() -> dict[str, EntryPoint]:
    """The providers that other packages bring along, by their names; those named as a built-in one are not heard."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in BUILT_IN_MODULES}


def _find(module: str) -> object:
    if path := BUILT_IN_MODULES.get(module):
        return _load(module, path)
    others = installed()
    if point := others.get(module):
        return _load(module, point.value, origin_of(point))
    if ":" in module:
        return _load(module, module)
    known = sorted({*BUILT_IN_MODULES, *others})
    near = get_close_matches(module, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, or a path 'package.module:Class'"
    raise ConfigError(f"there is no provider module {module!r}; {hint}")


def origin_of(point: EntryPoint) -> str:
    """Where an entry point comes from, and where it leads."""
    dist = point.dist
    return f"{dist.name} {dist.version}, {point.value}" if dist else point.value


def _load(module: str, path: str, origin: str = "") -> object:
    place, _, name = path.partition("[")[0].partition(":")
    try:
        found: object = import_module(place.strip())
        for part in name.strip().split("."):
            found = getattr(found, part)
    except Exception as error:  # somebody else's module may raise anything while it is imported
        told = f"{module!r} ({origin})" if origin else repr(module)
        raise ConfigError(f"provider module {told} cannot be loaded: {type(error).__name__}: {error}") from error
    return found
