"""All checks of the project, in one command; exits non-zero if any fails. pytest comes last, and so its summary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("lint-imports", "--no-logo"),
    ("pytest", "-n", "2"),
)


def main() -> int:
    """Run every check, also after one has failed."""
    failed = []
    for command in CHECKS:
        print("$", *command, flush=True)  # noqa: T201
        if subprocess.run([BIN / command[0], *command[1:]], cwd=Path(__file__).parent, check=False).returncode:
            failed.append(" ".join(command))
            print("failed:", *command, flush=True, file=sys.stderr)  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
