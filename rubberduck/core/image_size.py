"""How large an image is, read from the first bytes of its file.

Sources: PNG (W3C, 11.2.1), GIF89a (logical screen descriptor), JPEG (ITU T.81, B.2.2), WebP (Google, RIFF container).
"""

from __future__ import annotations

import base64
import binascii

HEAD = 64 * 1024
"""Bytes that are looked at: in a JPEG much may stand before the size."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers of a JPEG without a length behind them."""

Size = tuple[int, int]
"""Width and height in pixels, each at least 1."""


def size_of_url(url: str) -> Size | None:
    """The size of the image that a data: URL carries; None for other URLs, and for what is no known image."""
    if not url.startswith("data:"):
        return None
    head, comma, data = url[: 5 + 256].partition(",")
    if not comma or not head.endswith(";base64"):
        return None
    start = len(head) + 1
    data = url[start : start + HEAD // 3 * 4]
    try:
        return size_of(base64.b64decode(data[: len(data) // 4 * 4]))
    except (binascii.Error, ValueError):
        return None


def size_of(head: bytes) -> Size | None:
    """The size of the image that begins with these bytes."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        found = _pair(head, 16, 4, "big") if head[12:16] == b"IHDR" else None
    elif head.startswith((b"GIF87a", b"GIF89a")):
        found = _pair(head, 6, 2, "little")
    elif head.startswith(b"\xff\xd8"):
        found = _jpeg(head)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        found = _webp(head)
    else:
        return None
    return found if found is not None and min(found) > 0 else None


def _pair(data: bytes, at: int, width: int, order: str) -> Size | None:
    """Two numbers of so many bytes, one behind the other."""
    if len(data) < at + 2 * width:
        return None
    first, second = data[at : at + width], data[at + width : at + 2 * width]
    if order == "big":
        return int.from_bytes(first, "big"), int.from_bytes(second, "big")
    return int.from_bytes(first, "little"), int.from_bytes(second, "little")


def _jpeg(data: bytes) -> Size | None:
    """The size in the frame header, behind any number of other segments."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            size = _pair(data, at + 5, 2, "big")
            return None if size is None else (size[1], size[0])
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


def _webp(data: bytes) -> Size | None:
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25 and data[20] == 0x2F:
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        size = _pair(data, 26, 2, "little")
        return None if size is None else (size[0] & 0x3FFF, size[1] & 0x3FFF)
    return None
