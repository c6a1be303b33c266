"""Who speaks OpenAI's chat format, and how each one's differs: a row of facts for each server.

Each list of fields was held against what the vendor says, named above the row:

- request types of the vendor's own SDK, made from its API description: Groq 1.7, Mistral 3.7, OpenRouter 1.3, Together
  3.1, Perplexity 0.46; xAI's protocol file (of its other API, which has the same names);
- the server's own source: vLLM (`chat_completion/protocol.py`), llama.cpp (`tools/server`: schema and common);
- pages and recorded exchanges: OpenAI, Azure, DeepSeek, Gemini.

No list was tried against a live server. Where a source is silent or two differ, a comment says so, and what would
change the answer is sent: the server's own refusal is a clear answer. A mere hint that is not known to be taken
(`user`, `metadata`, `service_tier`, `prompt_cache_key`) is left out, and named in a warning, as all is that is known
not to be taken. `extra` sends whatever a row does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

Medium = Literal["image_url", "input_audio", "file"]

CHAT = frozenset({
    *("temperature", "top_p", "stop", "n", "seed", "presence_penalty", "frequency_penalty", "logit_bias"),
    *("logprobs", "top_logprobs", "parallel_tool_calls", "response_format", "reasoning_effort", "verbosity"),
    *("metadata", "service_tier", "prompt_cache_key", "user"),
})  # fmt: skip
"""The fields of a request that OpenAI knows under the same name."""
OPTIONAL = CHAT | {"top_k", "reasoning_budget", "reasoning_summary"}
_SAMPLING = frozenset({"temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty"})
_COMMON = _SAMPLING | {"response_format", "reasoning_effort"}
_ALL_MEDIA: frozenset[Medium] = frozenset({"image_url", "input_audio", "file"})
_IMAGES: frozenset[Medium] = frozenset({"image_url"})
_HEARS: frozenset[Medium] = frozenset({"image_url", "input_audio"})
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_NOBODY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Dialect:
    """One server's chat format: where it is, and what it takes.

    `fields` are those of a request that it knows, `renamed` what it calls them. Of `hosts` (a name, or the end of one
    behind a dot) hold the vendor's list prices, under `prices`, and they alone may get the key from the environment.
    `families` are how its models' names begin; empty where any name may be one.
    """

    word: str
    base_url: str = ""
    key_variable: str = ""
    needs_key: bool = True
    hosts: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    prices: str = ""

    fields: frozenset[str] = CHAT
    renamed: Mapping[str, str] = field(default_factory=dict)
    limit: str = "max_tokens"
    """What the bound of an answer's tokens is called."""
    most_stops: int | None = None
    """The most stop sequences it takes, where it is known to refuse more."""
    effort: Literal["reasoning_effort", "reasoning", "thinking", "enabled", "template", "google"] = "reasoning_effort"
    """How reasoning is asked for: by OpenAI's word, in an object (OpenRouter), with a switch beside it (DeepSeek) or in
    place of `none` (Together), as an argument of the chat template (llama-server), in Google's own configuration."""
    levels: tuple[str, ...] = ()
    """The efforts that it has beside `none`, from least to most; empty where it has all, or knows best."""
    asks_usage: bool = True
    """Whether a stream tells its usage only if asked, by `stream_options`."""
    has_schemas: bool = True
    """Whether answers can be held to a JSON Schema; if not, the schema is told in a system text."""
    counts_logprobs: bool = False
    """Whether `logprobs` is a number: how many."""
    reasoning_rules: bool = False
    """Whether OpenAI's reasoning models are behind it, which take no sampling parameters."""

    has_developer: bool = False
    named: frozenset[str] = _ROLES
    """Whose messages can bear a name."""
    has_refusals: bool = False
    media: frozenset[Medium] = _IMAGES
    has_file_urls: bool = False
    has_bare_parts: bool = False
    """Whether a recording is its bare data, and a file an id or a URL (Mistral)."""
    caches: Literal["", "breakpoint", "cache_control"] = ""
    """How a place to cache up to is marked on a part, if at all."""
    natives: frozenset[str] = frozenset()
    """The formats of `Message.native` that go back."""
    gets_reasoning: bool = False
    """Whether turns with tool calls must go back with the reasoning before them."""
    short_ids: bool = False
    """Whether the id of a tool call is nine letters or digits."""
    longest_id: int | None = None
    """The most letters of a tool call's id; those that vLLM makes have 46."""

    has_tools: bool = True
    required: str = "required"
    has_named_choice: bool = True
    has_allowed_tools: bool = False
    has_custom_tools: bool = False

    has_embeddings: bool = False
    has_base64: bool = False
    """Whether vectors are known to be sent packed, where asked for so."""
    embedding_batch: int = 2048

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """The optional fields of a request that it does not know."""
        return tuple(sorted(OPTIONAL - self.fields))

    def is_at(self, host: str | None) -> bool:
        """Whether a host is the vendor's own."""
        return any(f".{host}".endswith(f".{own}") for own in self.hosts)


OPENAI = Dialect(
    "openai",
    "https://api.openai.com/v1",
    "OPENAI_API_KEY",
    hosts=("api.openai.com",),
    most_stops=4,
    families=("gpt-", "chatgpt-", "o1", "o3", "o4", "ft:", "text-embedding-"),
    prices="openai",
    limit="max_completion_tokens",
    reasoning_rules=True,
    has_developer=True,
    has_refusals=True,
    media=_ALL_MEDIA,
    caches="breakpoint",
    has_allowed_tools=True,
    has_custom_tools=True,
    has_embeddings=True,
    has_base64=True,
    longest_id=40,
)
ANY = Dialect(
    "openai",
    needs_key=False,
    fields=CHAT | {"top_k"},
    has_refusals=True,
    media=_ALL_MEDIA,
    natives=frozenset({"openrouter", "gemini"}),
    has_custom_tools=True,
    has_embeddings=True,
)
"""A server that nothing is known of: it gets what it is asked for, in the older spellings."""

AZURE = Dialect(
    "azure",
    key_variable="AZURE_OPENAI_API_KEY",
    hosts=("openai.azure.com", "cognitiveservices.azure.com", "services.ai.azure.com"),
    prices="azure",
    limit="max_completion_tokens",
    most_stops=4,
    reasoning_rules=True,
    has_developer=True,
    has_refusals=True,
    media=_ALL_MEDIA,
    caches="breakpoint",  # not verified for Azure; it is sent only to the models that have it at OpenAI
    has_allowed_tools=True,
    has_custom_tools=True,
    has_embeddings=True,
    has_base64=True,
    longest_id=40,
)
GROQ = Dialect(
    "groq",
    "https://api.groq.com/openai/v1",
    "GROQ_API_KEY",
    hosts=("api.groq.com",),
    prices="groq",
    # n must be 1; penalties, logprobs, logit_bias and metadata are listed as what no model supports, and names as 400.
    fields=frozenset({
        *("temperature", "top_p", "stop", "seed", "parallel_tool_calls", "response_format", "reasoning_effort"),
        *("service_tier", "user"),
    }),
    limit="max_completion_tokens",
    most_stops=4,
    levels=("low", "medium", "high"),
    named=_NOBODY,
    has_embeddings=True,
    has_base64=True,
)  # fmt: skip
MISTRAL = Dialect(
    "mistral",
    "https://api.mistral.ai/v1",
    "MISTRAL_API_KEY",
    hosts=("api.mistral.ai",),
    families=(
        *("mistral-", "ministral-", "open-mi", "codestral-", "magistral-", "devstral-", "pixtral-", "voxtral-"),
        "labs-",
    ),
    prices="mistral",
    fields=_COMMON | {
        *("n", "top_k", "logprobs", "top_logprobs", "parallel_tool_calls"),
        *("metadata", "service_tier", "prompt_cache_key"),
    },
    renamed={"seed": "random_seed", "dimensions": "output_dimension"},
    asks_usage=False,
    named=frozenset({"tool"}),
    media=_ALL_MEDIA,
    has_bare_parts=True,
    short_ids=True,
    required="any",
    has_embeddings=True,
)  # fmt: skip
DEEPSEEK = Dialect(
    "deepseek",
    "https://api.deepseek.com",
    "DEEPSEEK_API_KEY",
    hosts=("api.deepseek.com",),
    families=("deepseek-",),
    prices="deepseek",
    # While it thinks, as most models do by themselves, it refuses a forced tool; logprobs it refused once, and the
    # newer page is silent of them. Efforts that it has not it takes for the nearest. n and seed: no source.
    fields=(_COMMON - {"seed"}) | {"logprobs", "top_logprobs"},
    most_stops=16,
    effort="thinking",
    has_schemas=False,
    media=frozenset(),
    gets_reasoning=True,
)
OPENROUTER = Dialect(
    "openrouter",
    "https://openrouter.ai/api/v1",
    "OPENROUTER_API_KEY",
    hosts=("openrouter.ai",),
    prices="openrouter",
    # verbosity is in its list of parameters, not in its request type.
    fields=(CHAT - {"n"}) | {"top_k", "reasoning_budget", "reasoning_summary"},
    most_stops=4,
    effort="reasoning",
    media=_ALL_MEDIA,
    has_file_urls=True,
    caches="cache_control",
    natives=frozenset({"openrouter"}),
    has_embeddings=True,
    has_base64=True,
)
TOGETHER = Dialect(
    "together",
    "https://api.together.xyz/v1",
    "TOGETHER_API_KEY",
    hosts=("api.together.xyz", "api.together.ai"),
    prices="together",
    # parallel_tool_calls: no source.
    fields=_COMMON | {"n", "top_k", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls"},
    effort="enabled",
    levels=("low", "medium", "high"),
    counts_logprobs=True,
    media=_HEARS,
    has_embeddings=True,
)
VLLM = Dialect(
    "vllm",
    "http://127.0.0.1:8000/v1",
    "VLLM_API_KEY",
    needs_key=False,
    # `user` is taken and ignored. A budget needs a reasoning parser, without which it is refused.
    fields=_COMMON | {
        *("n", "top_k", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls", "user", "reasoning_budget"),
    },
    renamed={"reasoning_budget": "thinking_token_budget"},
    media=_HEARS,
    has_embeddings=True,
    has_base64=True,
)  # fmt: skip
LLAMA_SERVER = Dialect(
    "llama_server",
    "http://127.0.0.1:8080/v1",
    "LLAMA_API_KEY",
    needs_key=False,
    # n: up to its slots, and older ones refuse more than 1; a budget: unless it was started with one.
    fields=_COMMON | {
        *("n", "top_k", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_budget"),
    },
    renamed={"reasoning_budget": "thinking_budget_tokens"},
    effort="template",
    media=_HEARS,
    has_named_choice=False,
    has_embeddings=True,
)  # fmt: skip
XAI = Dialect(
    "xai",
    "https://api.x.ai/v1",
    "XAI_API_KEY",
    hosts=("api.x.ai",),
    families=("grok-",),
    prices="x-ai",
    # Models that reason refuse stop and the penalties, and their names do not tell them. More than 4 or 8 stops are
    # refused, as one source says or the other. logit_bias: one has it, one has not.
    fields=_COMMON | {
        *("n", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls", "service_tier", "user"),
    },
    limit="max_completion_tokens",
    named=frozenset({"user"}),
)  # fmt: skip
PERPLEXITY = Dialect(
    "perplexity",
    "https://api.perplexity.ai",
    "PERPLEXITY_API_KEY",
    hosts=("api.perplexity.ai",),
    families=("sonar",),
    prices="perplexity",
    # Tools are in its request type, but the server refuses them with every model.
    fields=(_COMMON - {"seed"}) | {"n", "top_k", "logprobs", "top_logprobs"},
    levels=("minimal", "low", "medium", "high"),
    asks_usage=False,
    named=_NOBODY,
    has_tools=False,
)
GEMINI = Dialect(
    "gemini",
    "https://generativelanguage.googleapis.com/v1beta/openai",
    "GEMINI_API_KEY",
    hosts=("generativelanguage.googleapis.com",),
    families=("gemini-", "gemma-", "models/"),
    prices="google",
    # It refuses a body with an unknown field: seed and penalties are known to be such. logprobs and
    # parallel_tool_calls: no source.
    fields=frozenset({
        *("temperature", "top_p", "stop", "n", "response_format", "parallel_tool_calls", "logprobs", "top_logprobs"),
        *("reasoning_effort", "reasoning_budget", "reasoning_summary"),
    }),
    effort="google",
    levels=("minimal", "low", "medium", "high"),
    named=_NOBODY,
    media=_HEARS,
    natives=frozenset({"gemini"}),
    has_embeddings=True,
    embedding_batch=100,
)  # fmt: skip
