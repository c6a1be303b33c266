"""Fetches the images that a request only names, for servers that take none by their URL.

A URL comes from whoever wrote the request, who may be a stranger. So only https on its usual port is fetched; the name
is resolved once, all its addresses must be public, and the connection goes to the one that was looked at (a second
look-up could give another). No redirect is followed, no proxy, cookie or key is used, and only an image of bounded
size comes back.
Source: OWASP, "Server-Side Request Forgery Prevention Cheat Sheet".
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, urlsplit, urlunsplit

from rubberduck.core.public_address import is_public
from rubberduck.errors import InvalidRequest
from rubberduck.transport import Reply, TransportError
from rubberduck.transport_pinned import fetch_pinned
from rubberduck.types import ImagePart, ImageUrl, Message, Part, Request

FIELD = "messages.content.image_url.url"
LONGEST_FETCH_S = 20.0
LARGEST_BYTES = 20 * 1024 * 1024
"""Of all images of a request together."""
MOST_IMAGES = 32

Resolve = Callable[[str], Awaitable[list[str]]]


async def addresses_of(host: str) -> list[str]:
    """The addresses of a name. Raises OSError where it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


class RemoteImages:
    """Puts the images themselves where a request has their URLs.

    `resolve` looks up a name, `get` does the fetching; the guard stands between them.
    """

    def __init__(self, resolve: Resolve = addresses_of, get: Callable[..., Awaitable[Reply]] = fetch_pinned) -> None:
        self._resolve = resolve
        self._get = get

    async def brought_into(self, request: Request) -> Request:
        """The request with each image that was elsewhere in it as a data: URL.

        Raises:
            InvalidRequest: one of them may not be fetched, could not be, or is no image.
        """
        wanted = list(dict.fromkeys(part.image_url.url for message in request.messages for part in _remote(message)))
        if not wanted:
            return request
        if len(wanted) > MOST_IMAGES:
            raise _refusal(f"at most {MOST_IMAGES} images are fetched for a request, not {len(wanted)}")
        try:
            async with asyncio.timeout(LONGEST_FETCH_S):
                fetched = await self._fetch_all(wanted)
        except TimeoutError:
            raise _refusal(f"the images did not come within {LONGEST_FETCH_S:g} s") from None
        messages = tuple([_with_images(message, fetched) for message in request.messages])
        return request.model_copy(update={"messages": messages})

    async def _fetch_all(self, urls: list[str]) -> dict[str, str]:
        fetched: dict[str, str] = {}
        left = LARGEST_BYTES
        for url in urls:
            kind, image = await self._fetch(url, left)
            left -= len(image)
            fetched[url] = f"data:{kind};base64,{base64.b64encode(image).decode()}"
        return fetched

    async def _fetch(self, url: str, left: int) -> tuple[str, bytes]:
        parts = _checked(url)
        host = _in_ascii(parts.hostname or "")
        address = await self._public_address(host)
        try:
            reply = await self._get(
                urlunsplit(("https", host, parts.path, parts.query, "")),
                address,
                headers={"accept": "image/*"},
                most_bytes=left,
            )
        except TransportError as error:
            raise _refusal(f"the image at {host} could not be fetched: {error}") from None
        return _kind(reply, host), reply.body

    async def _public_address(self, host: str) -> str:
        """The address to go to: all that the name has must be public, else it is a trap or a mistake."""
        try:
            found = await self._resolve(host)
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise _refusal(f"there is no host {host!r}")
        if not all(map(is_public, found)):
            raise _refusal(f"the host {host!r} is not on the open Internet: images are not fetched from inside")
        return found[0]


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" and bool(parts.hostname) and parts.port in (None, 443)
    except ValueError:
        raise _refusal("the URL of an image cannot be read") from None
    if not usable or parts.username is not None or parts.password is not None:
        raise _refusal("images are fetched from https URLs without a port, user or password only")
    return parts


def _in_ascii(host: str) -> str:
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise _refusal(f"{host!r} is no name of a host") from None


def _kind(reply: Reply, host: str) -> str:
    if reply.status != 200:
        raise _refusal(f"the image at {host} could not be fetched: status {reply.status}")
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") or not kind[6:].replace("-", "").replace(".", "").isalnum():
        raise _refusal(f"what is at {host} is no image that a model can see, but {kind[:50]!r}")
    return str(kind)


def _refusal(why: str) -> InvalidRequest:
    return InvalidRequest(why, field=FIELD)


def _remote(message: Message) -> list[ImagePart]:
    parts = message.content if isinstance(message.content, tuple) else ()
    return [part for part in parts if isinstance(part, ImagePart) and not part.image_url.url.startswith("data:")]


def _with_images(message: Message, fetched: dict[str, str]) -> Message:
    if not _remote(message):
        return message
    parts = tuple([_with_image(part, fetched) for part in message.content or () if not isinstance(part, str)])
    return message.model_copy(update={"content": parts})


def _with_image(part: Part, fetched: dict[str, str]) -> Part:
    if not isinstance(part, ImagePart) or part.image_url.url not in fetched:
        return part
    image = ImageUrl(url=fetched[part.image_url.url], detail=part.image_url.detail)
    return part.model_copy(update={"image_url": image})
