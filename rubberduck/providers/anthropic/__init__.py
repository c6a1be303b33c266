"""Anthropic's Messages API."""

from rubberduck.providers.anthropic.provider import Anthropic

__all__ = ["Anthropic"]
