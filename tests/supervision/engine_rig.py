"""The pretend shell under the short names that the engine's tests use."""

from __future__ import annotations

from supervision.testing.pretend_shell import BOOM, NORMAL, child
from supervision.testing.pretend_shell import PretendShell as Rig

__all__ = ["BOOM", "NORMAL", "Rig", "child"]
