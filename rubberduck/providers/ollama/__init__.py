"""Ollama's own API."""

from rubberduck.providers.ollama.provider import Ollama

__all__ = ["Ollama"]
