"""The most that a call can cost before it is made: what budgets set aside for it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

from rubberduck.actors.board import ProviderDesk, Route
from rubberduck.actors.calls.call import Asked
from rubberduck.actors.office import Office
from rubberduck.core import pricing
from rubberduck.core.image_tokens import rule_for
from rubberduck.errors import InvalidRequest
from rubberduck.prices import context_window
from rubberduck.types import AudioPart, EmbeddingRequest, FilePart, ImagePart, Message, Part, Request, Usage

UNBOUNDED_OUTPUT = 32_768
"""The most output, in tokens, of a request that does not bound it, where its provider does not either."""

_PER_MESSAGE, _PER_IMAGE, _FOR_TOOLS, _PER_TEXT = 16, 2_000, 1_000, 4
"""Tokens that a provider may add by itself: around a message, for an image, to explain tools, around a text."""
_UNSEEN = 200_000
"""The most tokens of a document that is only referred to, where nobody says how much a model reads."""


def worst_case(office: Office, route: Route, request: Asked) -> Decimal | None:
    """The most that a request can cost on a route, in USD: with the dearest of the rates that its tokens may have."""
    desk = office.board.desks[route.provider]
    if isinstance(request, EmbeddingRequest):
        return office.cost(desk, route, Usage(most_tokens(request)))[0]
    unseen = context_window(desk.vendor, route.model) or _UNSEEN
    prompt = most_input(request, max(_PER_IMAGE, rule_for(route.model).most), unseen)
    default = desk.provider.default_max_tokens  # what is thought on a budget comes on top of it
    most = request.max_tokens or (default + (request.reasoning_budget or 0) if default else UNBOUNDED_OUTPUT)
    output = most * request.n
    _, price = office.cost(desk, route, Usage(prompt, output))
    if price is not None:
        return pricing.worst_case(price, prompt, output, _tiers(desk, request, price))
    return _worst_of_all(office, desk, route, Usage(prompt, output), _tiers(desk, request, None))


def _worst_of_all(
    office: Office, desk: ProviderDesk, route: Route, usage: Usage, tiers: Sequence[str | None]
) -> Decimal | None:
    """The same where only the provider's own class knows prices: whatever the tokens may be is asked of it."""
    prompt, output, dearest = usage.prompt_tokens, usage.completion_tokens, Decimal(0)
    for written, kept, heard in (
        (None, None, None),
        (prompt, None, None),
        (prompt, prompt, None),
        (None, None, prompt),
    ):
        for thought, spoken, tier in itertools.product((None, output), (None, output), tiers):
            each = Usage(
                prompt,
                output,
                cache_write_tokens=written,
                cache_write_1h_tokens=kept,
                prompt_audio_tokens=heard,
                reasoning_tokens=thought,
                completion_audio_tokens=spoken,
                service_tier=tier,
            )
            cost, _ = office.cost(desk, route, each)
            if cost is None:
                return None
            dearest = max(dearest, cost)
    return dearest


def _tiers(desk: ProviderDesk, request: Request, price: pricing.Price | None) -> tuple[str | None, ...]:
    """How the call may be served: ordinarily, or as it asks. With "auto" it may be any way that has a price."""
    asked = request.service_tier
    if request.extra:
        with suppress(InvalidRequest):  # it will be refused for it
            extra = desk.provider.extra_of(request)
            asked = extra.get("service_tier") or extra.get("speed") or asked
    if asked == "auto" and price is not None:
        return (None, *(tier for tier, _ in price.service_tiers))
    return (None, asked) if isinstance(asked, str) and asked else (None,)


def most_input(request: Request, image: int, unseen: int) -> int:
    """More input tokens than a request has in any vocabulary: a token is at least one byte.

    `image` is the most that an image costs, `unseen` the most of a document that is only referred to.
    """
    total = sum([_most(message, image, unseen) for message in request.messages])
    if request.tools:
        total += _FOR_TOOLS + sum([_written(tool.model_dump()) for tool in request.tools])
    return total + _written([request.response_format, request.extra])


def most_tokens(request: EmbeddingRequest) -> int:
    """The same for texts that are to become vectors."""
    texts = [_bytes(each) if isinstance(each, str) else len(each) for each in request.input]
    return sum(texts) + _PER_TEXT * len(texts)


def _most(message: Message, image: int, unseen: int) -> int:
    total = _PER_MESSAGE + _bytes(message.text) + _bytes(message.name or "")
    for call in message.tool_calls:
        total += _written(call.model_dump())
    if message.function_call is not None:
        total += _written(message.function_call.model_dump())
    if isinstance(message.content, tuple):
        total += sum([_most_of(part, image, unseen) for part in message.content])
    if message.native is not None:
        total += _written(message.native.model_dump())
    return total + _bytes(message.reasoning or "")


def _most_of(part: Part, image: int, unseen: int) -> int:
    """What a part costs beside its text."""
    match part:
        case ImagePart():
            return image
        case AudioPart():
            return len(part.input_audio.data)
        case FilePart():
            return _bytes(part.context or "") + (len(part.file.file_data) if part.file.file_data else unseen)
    return 0


def _bytes(text: str) -> int:
    """Half a surrogate pair is no text, but it may be sent: as three bytes at most, or as an escape."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _written(value: Any) -> int:
    return _bytes(json.dumps(value, ensure_ascii=False))
