"""Remembers which route answered a conversation last: what a provider has read before, it reads faster and cheaper.

A conversation is known by its session, which the caller names, or by what its prompt begins with: each answer is
remembered under the whole prompt and under the instructions before it, and a prompt finds the longest beginning that
it shares. How much of a prompt the provider then finds in its cache is learned from what it says of its answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

KEPT_FOR = 300.0
MOST = 10_000
LEARNING = 0.5
"""How much the last answer counts among those before it."""


@dataclass(slots=True)
class Habit:
    """Where a conversation was answered last. `hit` is the share of its prompts that came out of the cache."""

    route: str
    until: float
    hit: float = 0.0


class Sticky:
    """The habits of the conversations of the last minutes; the least recently used goes for a new one."""

    def __init__(self, kept_for: float = KEPT_FOR, most: int = MOST) -> None:
        self._kept_for = kept_for
        self._most = most
        self._habits: OrderedDict[str, Habit] = OrderedDict()

    def __len__(self) -> int:
        return len(self._habits)

    def find(self, keys: Iterable[str], now: float) -> Habit | None:
        """The habit of the first key that has one."""
        for key in keys:
            habit = self._habits.get(key)
            if habit is not None:
                if now < habit.until:
                    return habit
                del self._habits[key]
        return None

    def answered(self, keys: Iterable[str], route: str, now: float, cached: int | None, prompt: int) -> None:
        """`route` has answered: `cached` of `prompt` tokens came out of its cache, None if it did not say."""
        for key in keys:
            habit = self._habits.pop(key, None)
            if habit is None or habit.route != route or now >= habit.until:
                habit = Habit(route, now)
            habit.until = now + self._kept_for
            if cached is not None and prompt > 0:
                habit.hit += LEARNING * (min(1.0, max(0.0, cached / prompt)) - habit.hit)
            self._habits[key] = habit
            if len(self._habits) > self._most:
                self._habits.popitem(last=False)


def session_key(tenant: str, model: str, session: str) -> str:
    """A session is one tenant's, for one model."""
    return f"{tenant!r}{model!r}{session!r}"


def prefix_keys(tenant: str, model: str, parts: Sequence[tuple[str, str]]) -> list[str]:
    """A key for each beginning of a prompt, the longest first. `parts` are (role, content) of its messages."""
    digest = blake2b(f"{tenant!r}{model!r}".encode(), digest_size=16)
    keys = []
    for role, content in parts:
        digest.update(f"\0{role}\0{len(content)}\0".encode())
        digest.update(content.encode("utf-8", "surrogatepass"))
        keys.append(digest.hexdigest())
    return keys[::-1]


def kept_keys(keys: Sequence[str], instructions: int) -> list[str]:
    """Under which of `prefix_keys` an answer is remembered: the whole prompt, and its first `instructions` messages."""
    whole = list(keys[:1])
    return whole if not 0 < instructions < len(keys) else [*whole, keys[len(keys) - instructions]]
