"""A model that runs on this machine, in a process that an actor keeps alive."""

from rubberduck.providers.local.provider import LocalProvider

__all__ = ["LocalProvider"]
