"""The top of a tree: a supervisor with nobody above it but the system."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from supervision.errors import StartFailedError
from supervision.exits import Exit
from supervision.future import AskFuture
from supervision.shell import Shell
from supervision.specs import validation
from supervision.supervisor import Supervisor, SupervisorHandle

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import Name
    from supervision.system import System


class RootHandle(SupervisorHandle):
    """The handle of a root. Stopping it, as Pykka's `stop_all` does, stops the whole system."""

    is_root = True

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        system = self._name.system
        assert system is not None
        timeout = validation.timeout(timeout, "stop(timeout)")
        stopped: AskFuture[bool] = AskFuture()
        was_alive = self.is_alive()
        if system.whole is not None:
            system.stopping.begin(timeout, lambda: stopped.settle(was_alive))
            return stopped.get() if block else stopped

        def stop_system() -> None:
            system.stop(None if timeout is None else max(0.0, timeout))
            stopped.settle(was_alive)

        threading.Thread(target=stop_system, name="supervision-stop", daemon=True).start()
        return stopped.get() if block else stopped


class RootSupervisor(Supervisor):
    ref_class = RootHandle


class Root:
    """The owner of a root: there is nobody above it but the system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.start: AskFuture[Any] = AskFuture()
        self.has_ended = False
        self.name: Name
        self.incarnation: Incarnation

    @property
    def shell(self) -> Shell | None:
        return getattr(self.incarnation.actor, "shell", None)

    def started(self, incarnation: Incarnation, info: Any) -> None:
        self.start.settle(incarnation.name.ref)

    def ignored(self, incarnation: Incarnation) -> None: ...

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        try:
            self.system.root_ended(self, exit)
        finally:
            incarnation.release()

    def zombie_ended(self, incarnation: Incarnation) -> None:
        self.system.zombie_ended(incarnation)


def start_error(path: str, reason: Any) -> StartFailedError:
    """The error of a failed `supervise`: names the child at fault."""
    failed = getattr(reason, "info", None)
    if failed is not None and hasattr(failed, "id"):
        return StartFailedError(f"{path}/{failed.id}", failed.reason)
    return StartFailedError(path, reason)
