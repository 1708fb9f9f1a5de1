"""HiGHS in a process of its own, so that a time limit is a hard stop.

HiGHS looks at its clock only between its steps, and single steps of large programs take long: 60 s have become 135.
The child sends every better solution as it finds it; when the time is up the parent keeps the last, and ends the child.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from inferno_milp.highs_engine import Found, Program, SolverError, run

GRACE_S = 0.25
"""How long after its limit HiGHS is left to end by itself, with its last bound."""
COMMAND = (sys.executable, "-m", "inferno_milp.highs_child")


def run_in_child(program: Program, *, gap: float, time_limit_s: float) -> Found:
    """Solve a program within a number of seconds, all told.

    Raises
    ------
    SolverError
        If HiGHS fails, or its process ends without an answer.
    """
    end = time.monotonic() + time_limit_s
    best = Found("no_solution", None, None, None)
    if time_limit_s <= 0:
        return best
    path = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    answers: queue.Queue[Any] = queue.Queue()
    talkers = [
        threading.Thread(target=_collect, args=(child.stdout, answers)),
        threading.Thread(target=_send, args=(child.stdin, (program, gap, end))),
    ]
    for talker in talkers:
        talker.start()
    try:
        while True:
            try:
                answer = answers.get(timeout=max(end + GRACE_S - time.monotonic(), 0))
            except queue.Empty:
                return best
            if isinstance(answer, Found):
                best = answer
            elif isinstance(answer, SolverError):
                raise answer
            elif isinstance(answer, _Last):
                return answer.found
            else:
                raise SolverError("the process of HiGHS ended without an answer")
    finally:
        child.kill()
        child.wait()
        for talker in talkers:
            talker.join()  # without the child their pipes are at an end


class _Last:
    """Marks the last answer."""

    def __init__(self, found: Found):
        self.found = found


def _send(stream: IO[bytes], message: object) -> None:
    try:
        with stream:
            pickle.dump(message, stream)
    except OSError:
        pass  # the child has ended; its silence is noticed where its answers are awaited


def _collect(stream: IO[bytes], answers: queue.Queue[Any]) -> None:
    """Pass the child's answers on; None when there will be no more."""
    try:
        with stream:
            while True:
                answers.put(pickle.load(stream))
    except (EOFError, OSError, pickle.UnpicklingError, ValueError):
        answers.put(None)


def main() -> None:
    """Be the child: take a program from stdin, send solutions to stdout."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whatever else is printed goes nowhere

    def send(message: object) -> None:
        pickle.dump(message, out)
        out.flush()

    program, gap, end = pickle.load(sys.stdin.buffer)
    try:
        # The monotonic clock counts from the start of the machine, for parent and child alike.
        left_s = max(end - time.monotonic(), 0.0)
        send(_Last(run(program, gap=gap, time_limit_s=left_s, on_better=send)))
    except SolverError as error:
        send(error)


if __name__ == "__main__":
    # As a module of its own name, so that what is pickled here is known by the same name there.
    from inferno_milp import highs_child

    highs_child.main()
