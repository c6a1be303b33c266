"""A test kit: time that a test moves itself, runs that can be repeated, faults at named points, probes, leftovers.

ManualClock             stands still until a test advances it
DeterministicScheduler  a whole system in the test's own thread: one seed, one interleaving
fault, delay            something goes wrong at a named point of an actor's life
Probe                   records the messages sent to it, and waits for them
leak_check              names the actors, tasks and threads that are left
EngineMachine           drives a supervisor's decisions beside a literal model of OTP (needs hypothesis)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervision.faults import POINTS, InjectedFault, delay, fault
from supervision.testing.clock import ManualClock
from supervision.testing.deterministic import DeterministicScheduler, Stuck
from supervision.testing.leaks import leak_check
from supervision.testing.probe import Probe

if TYPE_CHECKING:
    from supervision.testing.engine_machine import EngineMachine as EngineMachine

# Without EngineMachine, so that `import *` does not need hypothesis.
__all__ = [
    "POINTS",
    "DeterministicScheduler",
    "InjectedFault",
    "ManualClock",
    "Probe",
    "Stuck",
    "delay",
    "fault",
    "leak_check",
]


def __getattr__(name: str) -> Any:
    """Only who asks for the state machine needs hypothesis."""
    if name != "EngineMachine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from supervision.testing.engine_machine import EngineMachine

    return EngineMachine
