"""Undoes gzip and deflate a small piece at a time, so that a decompression bomb never unfolds in memory.

The caller counts the pieces and stops asking; nothing is decoded ahead of it.

Source: RFC 1952 (gzip, members may follow one another), RFC 9110 section 8.4.1 (deflate is zlib; some
servers send it bare).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE_BYTES = 64 * 1024
"""The most that is decoded at once, in bytes."""

_GZIP = zlib.MAX_WBITS | 16
_BARE = -zlib.MAX_WBITS


class MalformedEncoding(ValueError):
    """The bytes are not of the encoding that was announced, or the encoding is not one we read."""


class Inflater:
    """Decodes one body. `encoding` is the value of Content-Encoding.

    Raises:
        MalformedEncoding: for an encoding other than gzip and deflate: we ask for no other.
    """

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise MalformedEncoding(f"content encoding {encoding[:40]!r} was not asked for")
        self._is_gzip = encoding != "deflate"
        self._stream = zlib.decompressobj(_GZIP) if self._is_gzip else None
        self._fed = False

    @property
    def is_whole(self) -> bool:
        """Has the end of the encoded data been seen? An empty body counts as whole."""
        return not self._fed or (self._stream is not None and self._stream.eof)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded pieces, none above PIECE_BYTES; use them up before the next feed."""
        is_more = False  # zlib may keep output back although it took all input
        while data or is_more:
            stream = self._for(data)
            self._fed = True
            try:
                piece = stream.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise MalformedEncoding(f"the body is not what its content encoding says: {error}") from None
            if piece:
                yield piece
            is_more = len(piece) == PIECE_BYTES and not stream.eof
            data = stream.unused_data if stream.eof else stream.unconsumed_tail

    def _for(self, data: bytes) -> zlib._Decompress:
        if self._stream is None:
            self._stream = zlib.decompressobj(zlib.MAX_WBITS if data[0] & 0x0F == 8 else _BARE)
        elif self._stream.eof:
            if not self._is_gzip:
                raise MalformedEncoding("bytes follow the end of the deflated body")
            self._stream = zlib.decompressobj(_GZIP)
        return self._stream
