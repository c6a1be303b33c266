"""How many tokens a model makes of an image, by the rules that vendors publish.

Tiles: low detail costs a base; else the image is made to fit a square of 2048, then its shorter side 768, and each
tile of 512 that it needs costs as much again as told. Patches: each patch of 32 costs a token times the model's factor;
an image of too many patches is made smaller. Anthropic: an image is made to fit a longest edge and a number of tokens,
and costs its area divided by 750.

Sources: OpenAI, "Images and vision", calculating costs (2026), where the factors of gpt-5-mini, gpt-5-nano and later
models are those that are charged (OpenAI community, threads 1344040 and 1377015), not those that were told;
Anthropic, "Vision", image costs (2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt

from rubberduck.core.image_size import Size

UNKNOWN = (1024, 1024)
"""Taken for the size of an image that only a URL is known of."""
_SQUARE, _SHORTEST, _TILE, _PATCH = 2048, 768, 512, 32


@dataclass(frozen=True, slots=True)
class Tiles:
    """A base, and as much for each tile."""

    base: int
    tile: int

    def tokens(self, size: Size, detail: str | None) -> int:
        if detail == "low":
            return self.base
        width, height = map(float, size)
        if (longest := max(size)) > _SQUARE:
            width, height = width * _SQUARE / longest, height * _SQUARE / longest
        if (shortest := min(width, height)) > _SHORTEST:
            width, height = width * _SHORTEST / shortest, height * _SHORTEST / shortest
        tiles = ceil(max(1, round(width)) / _TILE) * ceil(max(1, round(height)) / _TILE)
        return self.base + tiles * self.tile

    @property
    def most(self) -> int:
        """What no image exceeds: 2048 by 768 has 8 tiles."""
        return self.base + 8 * self.tile


@dataclass(frozen=True, slots=True)
class Patches:
    """Hundredths of a token for each patch, and the most patches: ordinarily, and at "original" detail."""

    hundredths: int
    cap: int = 1536
    original: int = 1536

    def tokens(self, size: Size, detail: str | None) -> int:
        cap = self.original if detail == "original" else self.cap
        return ceil(min(cap, _patches(size, cap)) * self.hundredths / 100)

    @property
    def most(self) -> int:
        return ceil(max(self.cap, self.original) * self.hundredths / 100)


@dataclass(frozen=True, slots=True)
class Area:
    """A token for so many pixels, of an image that is made to fit."""

    longest: int
    most: int
    pixels: int = 750

    def tokens(self, size: Size, detail: str | None) -> int:
        shrink = min(1.0, self.longest / max(size))
        return min(self.most, max(1, ceil(size[0] * size[1] * shrink * shrink / self.pixels)))


Rule = Tiles | Patches | Area

_NEWER = Patches(120, 2500, 10_000)
_CLAUDE, _NEWER_CLAUDE = Area(1568, 1600), Area(2576, 4784)
_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("gpt-4", "chatgpt-4o", "gpt-4o", "gpt-4.1", "gpt-4.5"), Tiles(85, 170)),
    "gpt-4o-mini": Tiles(2833, 5667),
    **dict.fromkeys(("o1", "o3"), Tiles(75, 150)),
    "computer-use-preview": Tiles(65, 129),
    "gpt-4.1-mini": Patches(162),
    "gpt-4.1-nano": Patches(246),
    **dict.fromkeys(("o4-mini", "codex-mini"), Patches(172)),
    **dict.fromkeys(("gpt-5", "gpt-5.1"), Tiles(70, 140)),
    "gpt-5-nano": Patches(150),
    **dict.fromkeys(("gpt-5-mini", "gpt-5.2", "gpt-5.3", "gpt-5.4-mini", "gpt-5.4-nano"), Patches(120)),
    **dict.fromkeys(("gpt-5.4", "gpt-5.5", "gpt-5.6", "gpt-6"), _NEWER),
    "claude": _CLAUDE,
    **dict.fromkeys(
        ("claude-opus-4-7", "claude-opus-4-8", "claude-opus-5", "claude-sonnet-5", "claude-fable", "claude-mythos"),
        _NEWER_CLAUDE,
    ),
}  # the longest prefix wins
_STAND_IN = Tiles(85, 170)


def rule_for(model: str) -> Rule:
    """The rule of a model, by the longest prefix of its name that is known; else that of gpt-4o stands in."""
    name = model.rpartition("/")[2].removeprefix("ft:")
    known = [prefix for prefix in _RULES if name.startswith(prefix)]
    return _RULES[max(known, key=len)] if known else _STAND_IN


def _patches(size: Size, cap: int) -> int:
    """How many patches cover the image, made smaller until they are few enough, to a whole number of patches across."""
    width, height = size
    needed = ceil(width / _PATCH) * ceil(height / _PATCH)
    if needed <= cap:
        return needed
    shrink = sqrt(_PATCH * _PATCH * cap / (width * height))
    across, down = width * shrink / _PATCH, height * shrink / _PATCH
    shrink = min(max(1, int(across)) / across, max(1, int(down)) / down)
    return ceil(round(across * shrink, 6)) * ceil(round(down * shrink, 6))
