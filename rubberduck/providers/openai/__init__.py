"""OpenAI's chat API, and the servers that speak it: each with habits of its own, which stand in one table."""

from rubberduck.providers.openai.provider import OpenAI

__all__ = ["OpenAI"]
