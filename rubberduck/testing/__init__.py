"""The test kit: what RubberDuck's own tests use, for yours."""

from __future__ import annotations

from rubberduck.testing import faults
from rubberduck.testing.contract import ProviderContract
from rubberduck.testing.exchange import Behaviour, Call, Reply
from rubberduck.testing.fault_server import FaultServer

__all__ = ["Behaviour", "Call", "FaultServer", "ProviderContract", "Reply", "faults"]
