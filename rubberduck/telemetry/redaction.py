"""Keeps secrets out of whatever is written for people: by their values, and by the names of fields.

The values are known because the configuration is: `learn` is told them once, and from then on they are found in
any text, also base64- or URL-encoded, whole or within something longer.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

REDACTED = "[redacted]"

_SHORTEST = 4
"""Shorter values are words of everyday text; replacing them would destroy it and protect nothing."""
_SHORTEST_ENCODED = 8
_MAX_DEPTH = 24

_SECRET_FIELD = re.compile(
    r"(?:.*[-_])?(?:api[-_]?keys?|authorization|password|passwd|secret|client[-_]?secret|cookie|set[-_]?cookie"
    r"|(?:access|refresh|auth|bearer|id|session)[-_]?token|credentials?|private[-_]?key)",
    re.IGNORECASE,
)
_SECRET_SHAPE = re.compile(
    r"(?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}|\b(?:sk|rdk|xai|gsk|pk)[-_][A-Za-z0-9_-]{16,}",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)")


def is_secret_field(name: str) -> bool:
    """Whether a field of this name holds a secret: `api_key`, `Authorization`, `x-api-key`, `db_password`."""
    return _SECRET_FIELD.fullmatch(name.strip()) is not None


class Redactor:
    """Replaces secrets in texts and in nested values. Also a structlog processor: put it last.

    It may be used from any thread. It never changes what it is given.
    """

    def __init__(self, secrets: Iterable[str | SecretStr] = ()) -> None:
        self._lock = threading.Lock()
        self._needles: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.learn(secrets)

    def learn(self, secrets: Iterable[str | SecretStr]) -> None:
        """Look out for these values too, from now on; what was learned before is kept."""
        plain = [secret.get_secret_value() if isinstance(secret, SecretStr) else secret for secret in secrets]
        with self._lock:
            self._needles.update(form for secret in plain if len(secret) >= _SHORTEST for form in _forms(secret))
            longest_first = sorted(self._needles, key=lambda needle: (-len(needle), needle))
            self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def text(self, value: str) -> str:
        """The text without what is, or looks like, a secret."""
        if self._pattern is not None:
            value = self._pattern.sub(REDACTED, value)
        value = _USERINFO.sub(REDACTED, value)
        return _SECRET_SHAPE.sub(lambda match: (match["scheme"] or "") + REDACTED, value)

    def value(self, value: Any, depth: int = 0) -> Any:
        """A copy of a nested value without secrets; what is neither text, number nor container becomes its repr."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, SecretStr):
            return REDACTED
        if depth > _MAX_DEPTH:
            return "..."
        if isinstance(value, Mapping):
            return {self._key(key): self._field(key, part, depth) for key, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(part, depth + 1) for part in value]
        return self.text(repr(value))

    def __call__(self, logger: Any, method: str, event: Any) -> Any:
        """Redact an event dict before rendering, or the line after it."""
        if isinstance(event, bytes):
            return self.text(event.decode("utf-8", "replace")).encode()
        return self.text(event) if isinstance(event, str) else self.value(event)

    def _key(self, key: Any) -> Any:
        return self.text(key) if isinstance(key, str) else key

    def _field(self, key: Any, value: Any, depth: int) -> Any:
        if isinstance(key, str) and is_secret_field(key) and not isinstance(value, bool | int | float | None):
            return REDACTED
        return self.value(value, depth + 1)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    yield from (form for form in _within_base64(secret.encode()) if len(form) >= _SHORTEST_ENCODED)


def _within_base64(secret: bytes) -> Iterator[str]:
    """What the secret leaves in the base64 of any text that contains it, wherever in that text it begins.

    Three bytes become four letters, so there are three alignments; letters at the ends that also depend on the
    neighbours are left off.
    """
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + secret).decode()
        first = (before * 8 + 5) // 6
        last = (before + len(secret)) * 8 // 6
        yield encoded[first:last]
        yield encoded[first:last].translate(str.maketrans("+/", "-_"))


REDACTOR = Redactor()
"""The process's redactor; the runtime tells it the secrets of each configuration it starts."""
