"""The fixtures of the whole-tree tests; what they share as values is in the two rigs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from tests_system_rig import start_duck
from tests_upstreams_rig import upstreams

__all__ = ["start_duck", "upstreams"]
