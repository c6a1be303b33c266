"""What a configuration may call the module that serves a provider, and where each one's class is.

It stands here as words, and not as imports: who reads a configuration loads no provider.
"""

from __future__ import annotations

from collections.abc import Mapping

BUILT_IN_MODULES: Mapping[str, str] = {
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
ENTRY_POINT_GROUP = "rubberduck.providers"
"""Where other packages name theirs."""
