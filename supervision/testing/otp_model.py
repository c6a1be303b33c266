"""OTP's supervisor written down as slowly and literally as possible: lists, loops, one thing after another.

For `EngineMachine` to hold a supervisor's decisions against; nothing runs on it.

Starts and stops happen at once, as in erlang/otp lib/stdlib/src/supervisor.erl, whose functions these are. A child
is running, restarting or stopped (a pid, `{restarting, _}`, `undefined`).
"""

from __future__ import annotations

from dataclasses import dataclass

ORDERLY = ("normal", "shutdown")


@dataclass
class ModelChild:
    """One child; its `state` is running, restarting or stopped."""

    id: str
    restart: str
    significant: bool = False
    state: str = "stopped"


class Model:
    """The supervisor, its children in start order, and a log of what it did to them."""

    def __init__(self, strategy: str, max_restarts: int, max_seconds: float, auto_shutdown: str) -> None:
        self.strategy = strategy
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self.auto_shutdown = auto_shutdown
        self.children: list[ModelChild] = []
        self.outcomes: dict[str, list[str]] = {}
        self.window: list[float] = []
        self.retries: list[str] = []
        self.log: list[str] = []
        self.end: str | None = None
        self.now = 0.0

    def find(self, id: str) -> ModelChild | None:
        for child in self.children:
            if child.id == id:
                return child
        return None

    # do_start_child / start_children

    def start(self, child: ModelChild) -> str:
        self.log.append("+" + child.id)
        outcomes = self.outcomes.get(child.id, [])
        outcome = outcomes.pop(0) if outcomes else "ok"
        if outcome == "ok":
            child.state = "running"
        if outcome == "ignore":
            child.state = "stopped"
            if child.restart == "temporary":
                self.children.remove(child)
        return outcome

    def stop(self, child: ModelChild) -> None:
        if child.state == "running":
            self.log.append("-" + child.id)
        child.state = "stopped"

    def init(self, children: list[ModelChild]) -> None:
        self.children = children
        for child in list(children):
            if self.start(child) == "fail":
                self.finish("failed_to_start " + child.id)
                return

    def finish(self, why: str) -> None:
        for child in reversed(self.children):
            self.stop(child)
        self.end = why

    # restart_child

    def exit(self, id: str, reason: str) -> None:
        child = self.find(id)
        assert child is not None
        if child.restart == "permanent" or (child.restart == "transient" and reason not in ORDERLY):
            self.restart(child)
        else:
            child.state = "stopped"
            if child.restart == "temporary":
                self.children.remove(child)
            self.check_auto_shutdown(child)
        self.run_retries()

    def check_auto_shutdown(self, child: ModelChild) -> None:
        if not child.significant:
            return
        left = [other for other in self.children if other.significant and other.state != "stopped"]
        if self.auto_shutdown == "any_significant" or (self.auto_shutdown == "all_significant" and not left):
            self.finish("shutdown")

    # add_restart

    def restart(self, child: ModelChild) -> None:
        self.window = [then for then in self.window if then >= self.now - self.max_seconds]
        self.window.append(self.now)
        if len(self.window) > self.max_restarts:
            child.state = "stopped"
            self.finish("gave_up " + child.id)
            return
        child.state = "stopped"
        if self.strategy == "one_for_one":
            batch = [child]
        elif self.strategy == "rest_for_one":
            batch = self.children[self.children.index(child) :]
        else:
            batch = list(self.children)
        for other in reversed(batch):
            self.stop(other)
        for other in batch:
            if other.restart == "temporary":
                self.children.remove(other)
        for other in batch:
            if other in self.children and self.start(other) == "fail":
                other.state = "restarting"
                self.retries.append(other.id)
                return

    # handle_cast({try_again_restart, ...})

    def run_retries(self) -> None:
        while self.retries and self.end is None:
            child = self.find(self.retries.pop(0))
            if child is not None and child.state == "restarting":
                self.restart(child)

    # handle_call

    def start_child(self, new: ModelChild) -> str:
        old = self.find(new.id)
        if old is not None:
            return "already_started" if old.state == "running" else "already_present"
        self.children.append(new)
        outcome = self.start(new)
        if outcome == "fail":
            self.children.remove(new)
        return outcome

    def restart_child(self, id: str) -> str:
        child = self.find(id)
        if child is None:
            return "not_found"
        return self.start(child) if child.state == "stopped" else child.state

    def terminate_child(self, id: str) -> str:
        child = self.find(id)
        if child is None:
            return "not_found"
        self.stop(child)
        if child.restart == "temporary":
            self.children.remove(child)
        return "ok"

    def delete_child(self, id: str) -> str:
        child = self.find(id)
        if child is None:
            return "not_found"
        if child.state != "stopped":
            return child.state
        self.children.remove(child)
        return "ok"
