from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.inflate import PIECE_BYTES, Inflater, MalformedEncoding


def bare(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}
bodies = st.binary(max_size=200) | st.integers(0, 300_000).map(lambda n: b"duck" * n)


@given(bodies, st.sampled_from(sorted(ENCODERS)), st.integers(1, 5000))
def test_body_comes_back_whole_in_bounded_pieces_however_it_was_split(body: bytes, encoding: str, step: int) -> None:
    encoded = ENCODERS[encoding](body)
    inflater = Inflater(encoding)
    pieces = [piece for i in range(0, len(encoded), step) for piece in inflater.feed(encoded[i : i + step])]
    assert b"".join(pieces) == body
    assert max(map(len, pieces), default=0) <= PIECE_BYTES
    assert inflater.is_whole


@given(bodies.filter(bool), st.integers(1, 100))
def test_bare_deflate_is_read_too(body: bytes, step: int) -> None:
    encoded = bare(body)
    inflater = Inflater("deflate")
    assert b"".join(p for i in range(0, len(encoded), step) for p in inflater.feed(encoded[i : i + step])) == body
    assert inflater.is_whole


@given(st.binary(min_size=1, max_size=500), st.data())
def test_cut_body_is_not_whole(body: bytes, data: st.DataObject) -> None:
    encoded = gzip.compress(body)
    inflater = Inflater("gzip")
    list(inflater.feed(encoded[: data.draw(st.integers(1, len(encoded) - 1))]))
    assert not inflater.is_whole


def test_gzip_members_follow_one_another() -> None:
    assert b"".join(Inflater("gzip").feed(gzip.compress(b"one ") + gzip.compress(b"two"))) == b"one two"


def test_bomb_is_handed_out_a_piece_at_a_time() -> None:
    pieces = Inflater("gzip").feed(gzip.compress(bytes(50_000_000)))
    assert len(next(pieces)) <= PIECE_BYTES


@given(st.binary(min_size=1, max_size=60), st.sampled_from(["gzip", "deflate"]))
def test_anything_else_is_malformed_and_nothing_worse(body: bytes, encoding: str) -> None:
    try:
        list(Inflater(encoding).feed(body))
    except MalformedEncoding:
        pass


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 1000])
def test_encodings_that_nobody_asked_for_are_refused(encoding: str) -> None:
    with pytest.raises(MalformedEncoding, match="not asked for"):
        Inflater(encoding)
