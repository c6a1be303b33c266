"""What may exist only once: the resources that an actor class declares, which no two of its lives may share."""

from __future__ import annotations

from supervision.errors import SpecError


def exclusive(actor_class: type) -> tuple[str, ...]:
    """What an actor class declares: `exclusive = ("port 8080",)` says that no two of its lives may overlap.

    The words mean what the user takes them for; two classes with a word in common exclude each other. After an
    abandonment no replacement starts beside the zombie.

    Raises:
        SpecError: it is no tuple of texts.
    """
    words = getattr(actor_class, "exclusive", ())
    if not isinstance(words, tuple) or not all(isinstance(each, str) for each in words):
        raise SpecError(f"{actor_class.__name__}.exclusive: {words!r} is not a tuple of texts")
    return words
