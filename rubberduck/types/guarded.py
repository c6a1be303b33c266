"""Values that users are handed in great numbers: nobody changes them by mistake, and making one costs little."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as guarded
else:
    from dataclasses import MISSING, dataclass, fields

    def guarded(*, frozen, slots):
        """A frozen dataclass with slots, for a class without heirs whose fields have plain defaults or none.

        Python's own guard sets each field by a call, which for a chunk of a stream and its delta takes longer than
        reading their JSON. Here they are set while the value is still of a class with the same slots and no guard;
        then it changes over to its own.
        """
        return lambda cls: _set_unguarded(dataclass(frozen=frozen, slots=slots)(cls))

    def _set_unguarded(cls):
        told = {each.name: each.default for each in fields(cls)}
        scope = {f"default_of_{name}": default for name, default in told.items()}
        scope |= {
            "guarded": cls,
            "bare": type(cls.__name__, (), {"__slots__": cls.__slots__}),
            "set": object.__setattr__,
        }
        asked = [name if default is MISSING else f"{name}=default_of_{name}" for name, default in told.items()]
        lines = [
            "set(self, '__class__', bare)",
            *(f"self.{name} = {name}" for name in told),
            "self.__class__ = guarded",
        ]
        text = f"def __init__(self, {', '.join(asked)}):\n  " + "\n  ".join(lines)
        exec(text, scope)  # noqa: S102 - as dataclasses does: it is made of nothing but the names of fields
        for name in ("__qualname__", "__module__", "__annotations__"):
            setattr(scope["__init__"], name, getattr(cls.__init__, name))
        cls.__init__ = scope["__init__"]
        return cls


__all__ = ["guarded"]
