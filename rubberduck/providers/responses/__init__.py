"""OpenAI's Responses API."""

from rubberduck.providers.responses.provider import OpenAIResponses

__all__ = ["OpenAIResponses"]
