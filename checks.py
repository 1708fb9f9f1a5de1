"""All checks of the project, in one command; exits non-zero if any fails. pytest comes last, and so its summary.

With `--fast`, the tests marked `fast` alone: the loop to work in.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
STATIC = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports", "--no-logo"))
ALL, FAST = ("pytest", "-n", "2"), ("pytest", "-n", "2", "-q", "-m", "fast", "tests")


def main() -> int:
    """Run every check, also after one has failed."""
    parser = argparse.ArgumentParser(description="Run all checks of the project.")
    parser.add_argument("--fast", action="store_true", help="the tests marked `fast` alone, in under a minute")
    chosen = parser.parse_args()
    failed = []
    for command in (*STATIC, FAST if chosen.fast else ALL):
        print("$", *command, flush=True)  # noqa: T201
        if subprocess.run([BIN / command[0], *command[1:]], cwd=Path(__file__).parent, check=False).returncode:
            failed.append(" ".join(command))
            print("failed:", *command, flush=True, file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
