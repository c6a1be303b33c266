"""The vendors: each module turns our requests into one vendor's bytes, and its bytes into our answers.

`resolve` finds a provider's class by what the configuration calls it.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from rubberduck.errors import ConfigError

if TYPE_CHECKING:
    from rubberduck.providers.base import Provider

ENTRY_POINT_GROUP = "rubberduck.providers"

BUILT_IN = {
    "openai": "rubberduck.providers.openai.provider:OpenAI",
    "openai_responses": "rubberduck.providers.responses.provider:OpenAIResponses",
    "anthropic": "rubberduck.providers.anthropic.provider:Anthropic",
    "ollama": "rubberduck.providers.ollama.provider:Ollama",
    "azure": "rubberduck.providers.openai.compatible:Azure",
    "groq": "rubberduck.providers.openai.compatible:Groq",
    "mistral": "rubberduck.providers.openai.compatible:Mistral",
    "deepseek": "rubberduck.providers.openai.compatible:DeepSeek",
    "openrouter": "rubberduck.providers.openai.compatible:OpenRouter",
    "together": "rubberduck.providers.openai.compatible:Together",
    "vllm": "rubberduck.providers.openai.compatible:VLLM",
    "llama_server": "rubberduck.providers.openai.compatible:LlamaServer",
    "xai": "rubberduck.providers.openai.compatible:XAI",
    "perplexity": "rubberduck.providers.openai.compatible:Perplexity",
    "gemini": "rubberduck.providers.openai.compatible:Gemini",
    "local": "rubberduck.providers.local.provider:LocalProvider",
    "mock": "rubberduck.providers.mock:Mock",
}
"""The words that a configuration may call a provider by, and where each one's class is."""


def resolve(module: str | type) -> type[Provider]:
    """The provider class for a word, an entry point's name, a path "package.module:Class", or a class itself.

    Built-in words win over entry points. Only the module that is asked for is imported.

    Raises:
        ConfigError: there is no such class, or it is no provider.
    """
    found = module if isinstance(module, type) else _find(module)
    from rubberduck.providers.base import Provider  # imports the HTTP client, which a mere look at words needs not

    if not (isinstance(found, type) and issubclass(found, Provider)):
        raise ConfigError(
            f"module {module!r} is no provider: it must be a subclass of rubberduck.providers.base.Provider"
        )
    return found


def installed() -> dict[str, EntryPoint]:
    """The providers that other packages bring along, by their names; those named as a built-in one are not heard."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in BUILT_IN}


def _find(module: str) -> object:
    if path := BUILT_IN.get(module):
        return _load(module, path)
    others = installed()
    if point := others.get(module):
        return _load(module, point.value, origin_of(point))
    if ":" in module:
        return _load(module, module)
    known = sorted({*BUILT_IN, *others})
    near = get_close_matches(module, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, or a path 'package.module:Class'"
    raise ConfigError(f"there is no provider module {module!r}; {hint}")


def origin_of(point: EntryPoint) -> str:
    """Where an entry point comes from, and where it leads."""
    dist = point.dist
    return f"{dist.name} {dist.version}, {point.value}" if dist else point.value


def _load(module: str, path: str, origin: str = "") -> object:
    place, _, name = path.partition("[")[0].partition(":")
    try:
        found: object = import_module(place.strip())
        for part in name.strip().split("."):
            found = getattr(found, part)
    except Exception as error:  # somebody else's module may raise anything while it is imported
        told = f"{module!r} ({origin})" if origin else repr(module)
        raise ConfigError(f"provider module {told} cannot be loaded: {type(error).__name__}: {error}") from error
    return found
