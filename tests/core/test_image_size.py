"""The size of an image from its first bytes, whatever they are."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.image_size import HEAD, size_of, size_of_url


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(5)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(3)


def jpeg(width: int, height: int, *before: bytes, frame: int = 0xC0) -> bytes:
    segments = b"".join([b"\xff\xe1" + struct.pack(">H", len(each) + 2) + each for each in before])
    return b"\xff\xd8" + segments + bytes([0xFF, frame]) + struct.pack(">HBHH", 17, 8, height, width) + bytes(10)


def webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF" + bytes(4) + b"WEBP" + kind + struct.pack("<I", len(body)) + body


def lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height))


def lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def extended(width: int, height: int) -> bytes:
    return webp(b"VP8X", bytes(4) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3])


MAKERS = [png, gif, jpeg, lossy, lossless, extended]
sides = st.integers(1, 2**14 - 1)


@pytest.mark.parametrize("make", MAKERS)
@given(width=sides, height=sides)
def test_every_kind_tells_its_size(make, width, height):
    assert size_of(make(width, height)) == (width, height)
    url = "data:image/any;base64," + base64.b64encode(make(width, height)).decode()
    assert size_of_url(url) == (width, height)


@pytest.mark.parametrize("make", MAKERS)
def test_a_cut_or_empty_image_has_no_size(make):
    whole = make(300, 200)
    shortest = next(end for end in range(len(whole) + 1) if size_of(whole[:end]))
    assert all(size_of(whole[:end]) is None for end in range(shortest))
    assert all(size_of(whole[:end]) == (300, 200) for end in range(shortest, len(whole) + 1))


def test_no_image_is_without_extent():
    assert size_of(png(0, 5)) is None
    assert size_of(gif(5, 0)) is None


@given(st.lists(st.binary(max_size=50), max_size=5), st.sampled_from([0xC0, 0xC1, 0xC2, 0xC9, 0xCF]))
def test_a_jpeg_may_say_much_before_its_size(before, frame):
    assert size_of(jpeg(300, 200, *before, frame=frame)) == (300, 200)
    filled = jpeg(300, 200, *before, frame=frame).replace(b"\xff\xe1", b"\xff\xff\xff\xe1", 1)
    assert size_of(filled) == (300, 200)


def test_tables_of_a_jpeg_are_not_taken_for_its_frame():
    for table in (0xC4, 0xC8, 0xCC):
        assert size_of(jpeg(300, 200, frame=table)) is None


@given(st.binary(max_size=200), st.sampled_from([b"", *(make(9, 9)[:12] for make in MAKERS), b"\xff\xd8\xff"]))
def test_any_bytes_have_a_size_or_none(data, start):
    size = size_of(start + data)
    assert size is None or min(size) >= 1


@given(st.text(max_size=60), st.sampled_from(["", "data:", "data:image/png;base64,", "data:;base64,iVBORw0KGgo"]))
def test_any_url_has_a_size_or_none(text, start):
    size = size_of_url(start + text)
    assert size is None or min(size) >= 1


def test_of_a_large_image_only_the_beginning_is_read():
    late = jpeg(300, 200, *[bytes(60_000)] * 3)
    url = "data:image/jpeg;base64," + base64.b64encode(late).decode()
    assert len(late) > HEAD
    assert size_of(late) == (300, 200)
    assert size_of_url(url) is None
