"""A test kit: time that a test moves itself, runs that can be repeated, faults at named points, probes, leftovers.

ManualClock             stands still until a test advances it
DeterministicScheduler  a whole system in the test's own thread: one seed, one interleaving
fault, delay            something goes wrong at a named point of an actor's life
Probe                   records the messages sent to it, and waits for them
leak_check              names the actors, tasks and threads that are left
"""

from __future__ import annotations

from supervision.faults import POINTS, InjectedFault, delay, fault
from supervision.testing.clock import ManualClock
from supervision.testing.deterministic import DeterministicScheduler, Stuck
from supervision.testing.leaks import leak_check
from supervision.testing.probe import Probe

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
