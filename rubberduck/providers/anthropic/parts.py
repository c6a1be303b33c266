"""Writes the parts of a message as blocks of Anthropic's Messages API: text, images, documents."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from rubberduck.errors import InvalidRequest
from rubberduck.types import CacheControl, FilePart, ImagePart, Part, TextPart

Block = dict[str, Any]

_DATA_URL = re.compile(
    r"data:(?P<media>[\w.+-]+/[\w.+-]+)?(?:;[\w.+=-]+)*?(?P<base64>;base64)?,(?P<data>.*)", re.DOTALL
)
_IMAGE_URL = re.compile(r"data:image/[\w.+-]+(?:;[\w.+=-]+)*;base64,", re.IGNORECASE)
_IMAGE_NAME = re.compile(r".*\.(png|jpe?g|gif|webp)", re.IGNORECASE)


def blocks_of(part: Part) -> list[Block]:
    """The block for a part; none for a text that says nothing, which the API would refuse."""
    match part:
        case TextPart():
            return text_block(part.text, part.cache_control)
        case ImagePart():
            return [_marked({"type": "image", "source": _image_source(part.image_url.url)}, part.cache_control)]
        case FilePart():
            return [_marked(_file_block(part), part.cache_control)]
        case _:
            raise InvalidRequest(f"Anthropic takes no {part.type} part", field="messages.content")


def text_block(text: str, mark: CacheControl | None = None) -> list[Block]:
    """A text as a block; none where it says nothing."""
    return [_marked({"type": "text", "text": text}, mark)] if text.strip() else []


def cache_mark(mark: CacheControl) -> dict[str, str]:
    """A mark as the API knows it: its times are 5 minutes and an hour, so half an hour is rounded up."""
    ttl = "1h" if mark.ttl == "30m" else mark.ttl
    return {"type": mark.type} | ({"ttl": ttl} if ttl else {})


def _marked(block: Block, mark: CacheControl | None) -> Block:
    return block if mark is None else block | {"cache_control": cache_mark(mark)}


class _Carried(NamedTuple):
    """What a data: URL carries; `data` is base64 if `is_base64`, else percent-encoded."""

    media: str
    is_base64: bool
    data: str


def _carried(url: str) -> _Carried | None:
    found = _DATA_URL.fullmatch(url)
    if found is None:
        return None
    return _Carried((found["media"] or "text/plain").lower(), found["base64"] is not None, found["data"])


def _image_source(url: str) -> dict[str, str]:
    carried = _carried(url)
    if carried is not None and carried.is_base64:
        return {"type": "base64", "media_type": carried.media, "data": carried.data}
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    raise InvalidRequest(
        "Anthropic takes images as https URLs or base64 data: URLs only", field="messages.content.image_url.url"
    )


def _file_block(part: FilePart) -> Block:
    """A document; an image where the file plainly is one."""
    file = part.file
    if is_image(part):
        named = {"type": "file", "file_id": file.file_id}
        return {"type": "image", "source": _image_source(file.file_data) if file.file_data else named}
    if file.file_id is not None:
        source = {"type": "file", "file_id": file.file_id}
    else:
        carried = _carried(file.file_data) if file.file_data is not None else None
        source = _document_source(file.file_url, carried)
    return {"type": "document", "source": source} | _about(part)


def is_image(part: FilePart) -> bool:
    """Whether a file is sent as an image: it carries one, or is called like one."""
    file = part.file
    if file.file_data is not None:
        return _IMAGE_URL.match(file.file_data) is not None
    return file.file_id is not None and _IMAGE_NAME.fullmatch(file.filename or "") is not None


def _document_source(url: str | None, carried: _Carried | None) -> dict[str, str]:
    if url is not None:
        if url.startswith("https://"):
            return {"type": "url", "url": url}
        raise InvalidRequest("Anthropic fetches files from https URLs only", field="messages.content.file.file_url")
    if carried is None:
        raise InvalidRequest(
            'file_data is a data: URL, such as "data:application/pdf;base64,..."',
            field="messages.content.file.file_data",
        )
    if carried.is_base64 and carried.media == "application/pdf":
        return {"type": "base64", "media_type": carried.media, "data": carried.data}
    if carried.media.startswith("text/") or carried.media == "application/json":
        return {"type": "text", "media_type": "text/plain", "data": _plain(carried)}
    raise InvalidRequest(
        f"Anthropic takes PDF and text as files, not {carried.media}", field="messages.content.file.file_data"
    )


def _plain(carried: _Carried) -> str:
    try:
        if carried.is_base64:
            return base64.b64decode(carried.data, validate=True).decode()
        return unquote(carried.data, errors="strict")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequest(
            "file_data says that it is text, but is none in UTF-8", field="messages.content.file.file_data"
        ) from None


def _about(part: FilePart) -> dict[str, Any]:
    about = {
        "title": part.title or part.file.filename,
        "context": part.context,
        "citations": None if part.citations is None else {"enabled": part.citations},
    }
    return {name: value for name, value in about.items() if value is not None}
