"""OpenAI's Chat Completions, as OpenAI serves it and as compatible servers do (set `base_url`).

Source: OpenAI API reference, "Create chat completion"; the dialects are in `dialects`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from rubberduck.errors import RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.base import Kind
from rubberduck.providers.http import HTTPProvider, Outgoing
from rubberduck.providers.openai import compatible_table, dialects
from rubberduck.providers.openai import embeddings as openai_embeddings
from rubberduck.providers.openai import request as openai_request
from rubberduck.providers.openai.compatible_table import Dialect
from rubberduck.providers.openai.stream import OpenAIStreamDecoder
from rubberduck.providers.reading import as_count, as_dict, as_list, as_name, as_text, made_id
from rubberduck.types import (
    Annotation,
    Choice,
    EmbeddingRequest,
    Embeddings,
    FunctionCall,
    Message,
    Native,
    Request,
    Response,
    ToolCall,
    Usage,
)


class OpenAI(HTTPProvider):
    """Speaks to OpenAI, or to any server with its chat API."""

    word = "openai"
    offers: frozenset[Kind] = frozenset({"chat", "embeddings"})
    default_base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"

    @cached_property
    def is_openai_itself(self) -> bool:
        """Whether the server is OpenAI's own, so that its newest spellings are understood."""
        return compatible_table.OPENAI.is_at(urlsplit(self.base_url).hostname)

    @cached_property
    def dialect(self) -> Dialect:
        """What the server understands; of one that is not OpenAI's own, nothing is known."""
        return compatible_table.OPENAI if self.is_openai_itself else compatible_table.ANY

    def supports_model(self, model: str) -> bool:
        """Own names and `models` at the vendor; elsewhere, and where any name may be one, `models` or any if none."""
        if model in self.config.models:
            return True
        if self.dialect.families and self.dialect.is_at(urlsplit(self.base_url).hostname):
            return model.startswith(self.dialect.families)
        return not self.config.models

    def encode(self, request: Request) -> Outgoing:
        """The path, headers and body of a call."""
        body = openai_request.encode_request(request, self.extra_of(request), self.dialect)
        return self._path("chat/completions", request.model), self._headers(), body

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What the server is not told of a request, or is told otherwise."""
        return openai_request.warnings_for(request, self.dialect)

    def embedding_warnings(self, request: EmbeddingRequest) -> tuple[str, ...]:
        """What the server is not told of a request for vectors."""
        return openai_embeddings.warnings_for(request, self.dialect)

    def encode_embedding(self, request: EmbeddingRequest) -> Outgoing:
        """The path, headers and body of a call for vectors."""
        body = openai_embeddings.encode_embedding(request, self.extra_of(request), self.dialect)
        return self._path("embeddings", request.model), self._headers(), body

    def decode_embedding(self, status: int, headers: Mapping[str, str], body: bytes) -> Embeddings:
        """The vectors in a whole HTTP response. Raises as `decode` does."""
        said = self.said_in(status, headers, body)
        vectors = openai_embeddings.decode_embeddings(said, provider=self.name)
        if vectors is None:
            raise failures.no_answer("list of embeddings", status, headers, self.name)
        return vectors

    def _path(self, of: str, model: str) -> str:
        return f"/{of}"

    def _headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if self.config.organization:
            headers["OpenAI-Organization"] = self.config.organization
        return headers

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer in a whole HTTP response.

        Raises:
            ProtocolError: when a 200 holds no completion; otherwise what `classify` says.
        """
        said = self.said_in(status, headers, body)
        if not any(isinstance(choice, dict) for choice in as_list(said.get("choices"))):
            raise failures.no_answer("chat completion", status, headers, self.name)
        return decode_response(said, provider=self.name)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        """The error that an HTTP response stands for."""
        return failures.make_error(failures.read_body(body), status, headers, self.name)

    def stream_decoder(self) -> OpenAIStreamDecoder:
        """A reader of one stream."""
        return OpenAIStreamDecoder(self.name)


# --- what we read


def decode_response(said: dict[str, Any], *, provider: str) -> Response:
    """A parsed `chat.completion`. Usage that the server did not tell is marked `estimated`, and zero."""
    answer_id, model = as_text(said.get("id")), as_text(said.get("model"))
    choices = [choice for choice in as_list(said["choices"]) if isinstance(choice, dict)]
    sources, head = dialects.sources_of(said), dialects.head_of(said)
    return Response(
        id=answer_id,
        model=model,
        choices=tuple(
            [_choice(at, choice, answer_id, model, () if at else sources) for at, choice in enumerate(choices)]
        ),
        usage=dialects.usage_of(said) or Usage(estimated=True),
        created=head.created,
        provider=provider,
        service_tier=head.service_tier,
        system_fingerprint=head.system_fingerprint,
    )


def _choice(
    position: int, choice: dict[str, Any], answer_id: str, model: str, sources: tuple[Annotation, ...]
) -> Choice:
    said = as_dict(choice.get("message"))
    text, reasoning = dialects.content_of(said)
    refusal = as_text(said.get("refusal")) or None
    told = dialects.tool_calls_of(said)
    calls = tuple([_tool_call(call, f"{answer_id}/{position}/{number}") for number, call in enumerate(told)])
    raw = as_name(choice.get("finish_reason"))
    index = as_count(choice.get("index"))
    message = Message(
        role="assistant",
        content=text if text or not (calls or refusal) else None,
        tool_calls=calls,
        function_call=calls[0].function if calls and not as_list(said.get("tool_calls")) else None,
        refusal=refusal,
        reasoning=reasoning or None,
        annotations=dialects.annotations_of(said) or sources,
        audio=dialects.audio_of(said),
        native=_native(said, told, calls, model),
    )
    reason = dialects.finish_reason(raw, has_tools=bool(calls), refused=refusal is not None)
    logprobs = dialects.logprobs_of(choice.get("logprobs"))
    return Choice(position if index is None else index, message, reason, raw, logprobs=logprobs)


def _native(said: dict[str, Any], told: list[dict[str, Any]], calls: tuple[ToolCall, ...], model: str) -> Native | None:
    sealed = dialects.Sealed()
    sealed.add(said)
    for call, ours in zip(told, calls, strict=True):
        if isinstance(call.get("extra_content"), dict):
            sealed.add_call(ours.id, call)
    return sealed.native(model)


def _tool_call(call: dict[str, Any], place: str) -> ToolCall:
    name, arguments = dialects.function_of(call)
    kind = dialects.kind_of(call)
    return ToolCall(
        id=as_name(call.get("id")) or made_id(place, name),
        type=kind,
        function=FunctionCall(name=name, arguments=arguments if arguments or kind == "custom" else "{}"),
    )
