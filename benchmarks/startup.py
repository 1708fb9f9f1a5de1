"""Processor time of the whole command on `instances/limited.yaml`, as it is and with all of Pyomo and scipy.stats.

Run `python -m benchmarks.startup --help`. Runs of both kinds take turns; the medians are printed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from pathlib import Path

INSTANCE = Path(__file__).parent.parent / "instances" / "limited.yaml"
COMMAND = ("from inferno_milp.cli import main; import sys; sys.exit(main([{instance!r}, '--json', '-']))",)
BEFORE = {"as it is": "", "with all imports": "import scipy.stats, pyomo.environ; "}


def cpu_s(code: str) -> float:
    """Processor seconds, user and system, of one Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    code = COMMAND[0].format(instance=str(INSTANCE))
    times: dict[str, list[float]] = {name: [] for name in BEFORE}
    for _ in range(arguments.repeats):
        for name, prefix in BEFORE.items():
            times[name].append(cpu_s(prefix + code))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.2f} s of CPU, median of {arguments.repeats}")
    print(f"ratio: {medians['with all imports'] / medians['as it is']:.2f}")


if __name__ == "__main__":
    main()
