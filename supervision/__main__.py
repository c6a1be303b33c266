"""Looks at running programs from outside.

    python -m supervision tree             the tree of the only program there is, or a list of those there are
    python -m supervision tree 4711        by process id; also by the system's name, or the path of its socket
    python -m supervision tree --watch     again and again
    python -m supervision tree --json      as data

A program can be looked at if it calls `system.publish()` or `system.run()`, and only by its own user and root.

Exit codes: 0 drawn, 1 nobody there or no answer, 2 the command line is wrong, 3 there are several to choose from.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supervision.view.drawing import plain
from supervision.view.published import PublishError, ask, sockets

OK, NOBODY, USAGE, SEVERAL = 0, 1, 2, 3

CLEAR = "\x1b[2J\x1b[H"


@dataclass(frozen=True, slots=True)
class Program:
    """One published system of a running process."""

    pid: int
    system: str
    path: Path

    def is_meant_by(self, target: str) -> bool:
        return target in (str(self.pid), self.system)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _show(options)
    except KeyboardInterrupt:  # how a watch is ended
        return OK
    except PublishError as error:
        print(f"supervision: {plain(str(error))}", file=sys.stderr)
        return NOBODY
    except BrokenPipeError:  # `| head` has seen enough; nothing may be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m supervision", description="Looks at running programs from outside."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    tree = commands.add_parser("tree", help="show the supervision tree of a running program")
    tree.add_argument(
        "target", nargs="?", metavar="TARGET", help="process id, name of the system, or path of its socket"
    )
    tree.add_argument("--json", action="store_true", help="as data, one object a line")
    tree.add_argument(
        "--watch", nargs="?", type=_seconds, const=2.0, metavar="SECONDS", help="again and again, every 2 s by default"
    )
    tree.add_argument("--directory", metavar="DIR", help="where the program was told to put its socket")
    return parser


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.05 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds from 0.05 to 86400")
    return seconds


def _show(options: argparse.Namespace) -> int:
    path = _path_of(options.target)
    if path is None:
        found = _programs(options.directory)
        meant = [each for each in found if options.target is None or each.is_meant_by(options.target)]
        if len(meant) != 1:
            return _refuse(options, found, meant)
        path = meant[0].path
    _draw(path, options)
    while options.watch is not None:
        time.sleep(options.watch)
        _draw(path, options)
    return OK


def _path_of(target: str | None) -> Path | None:
    """The socket, where TARGET is a path."""
    return Path(target) if target is not None and "/" in target else None


def _programs(directory: str | None) -> list[Program]:
    """Those that answer; what is left of killed ones is passed over."""
    found = []
    for path in sockets(directory):
        try:
            told = ask(path, "who")
            found.append(Program(int(told["pid"]), str(told["system"]), path))
        except (PublishError, KeyError, TypeError, ValueError) as error:
            print(f"supervision: {plain(str(error))}", file=sys.stderr)
    return found


def _refuse(options: argparse.Namespace, found: list[Program], meant: list[Program]) -> int:
    if not found:
        print(
            "supervision: no program of this user publishes a tree; it must call system.publish() or system.run()",
            file=sys.stderr,
        )
        return NOBODY
    if not meant:
        print(f"supervision: nobody is called {plain(options.target)!r}; there are:", file=sys.stderr)
        _list(found, sys.stderr.fileno(), as_json=False)
        return NOBODY
    print("supervision: which one? Give its process id, its name or its socket:", file=sys.stderr)
    _list(meant, sys.stdout.fileno(), as_json=options.json)
    return SEVERAL


def _list(programs: list[Program], file: int, *, as_json: bool) -> None:
    with open(file, "w", closefd=False) as stream:
        for each in programs:
            data = {"pid": each.pid, "system": each.system, "socket": str(each.path)}
            line = json.dumps(data) if as_json else f"{each.pid:>8}  {plain(each.system):<24}  {plain(str(each.path))}"
            print(line, file=stream)


def _draw(path: Path, options: argparse.Namespace) -> None:
    told = ask(path, "tree")
    if options.json:
        print(json.dumps(told.get("tree")), flush=True)
        return
    before = CLEAR if options.watch is not None and sys.stdout.isatty() else ""
    lines = [plain(line) for line in str(told.get("text")).split("\n")]
    print(f"{before}process {told.get('pid')}", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
