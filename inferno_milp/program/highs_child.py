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
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from inferno_milp.program.highs_engine import FloatArray, Found, Program, SolverError, run
from inferno_milp.program.lifeline import end_with_parent

GRACE_S = 0.25
"""How long after its limit HiGHS is left to end by itself, with its last bound."""
COMMAND = (sys.executable, "-m", "inferno_milp.program.highs_child")


class HighsProcess:
    """A process that solves one program after the other. It is started with the first, and again if it had to be ended.

    Use it as a context, which ends the process.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Any] = queue.Queue()
        self._collector: threading.Thread | None = None

    def __enter__(self) -> HighsProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def start(self) -> None:
        """Start the process, so that it is ready by the time of the first program."""
        if self._child is not None:
            return
        path = os.pathsep.join(
            [str(Path(__file__).parent.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        self._child = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._answers = queue.Queue()
        self._collector = threading.Thread(target=_collect, args=(self._child.stdout, self._answers))
        self._collector.start()

    def _end(self) -> None:
        if self._child is None:
            return
        self._child.kill()
        self._child.wait()
        assert self._collector is not None
        self._collector.join()  # without the child its pipe is at an end
        if self._child.stdin is not None:
            with suppress(OSError):
                self._child.stdin.close()
        self._child = None

    def run(
        self,
        program: Program,
        *,
        gap: float,
        time_limit_s: float,
        start: FloatArray | None = None,
        good_enough: float | None = None,
    ) -> Found:
        """Solve a program within a number of seconds, all told; the rest as `highs_engine.run`.

        Raises
        ------
        SolverError
            If HiGHS fails, or its process ends without an answer.
        """
        end = time.monotonic() + time_limit_s
        best = Found("no_solution", None, None, None)
        if time_limit_s <= 0:
            return best
        self.start()
        assert self._child is not None
        message = (program, gap, end, start, good_enough)
        sender = threading.Thread(target=_send, args=(self._child.stdin, message))
        sender.start()
        try:
            while True:
                try:
                    answer = self._answers.get(timeout=max(end + GRACE_S - time.monotonic(), 0))
                except queue.Empty:
                    self._end()
                    return best
                if isinstance(answer, Found):
                    best = answer
                elif isinstance(answer, SolverError):
                    raise answer
                elif isinstance(answer, _Last):
                    return answer.found
                else:
                    self._end()
                    raise SolverError("the process of HiGHS ended without an answer")
        except BaseException:
            self._end()
            raise
        finally:
            sender.join()


class _Last:
    """Marks the last answer."""

    def __init__(self, found: Found):
        self.found = found


def _send(stream: IO[bytes], message: object) -> None:
    with suppress(OSError, ValueError):  # the child has ended: its silence is noticed where its answers are awaited
        pickle.dump(message, stream)
        stream.flush()


def _collect(stream: IO[bytes], answers: queue.Queue[Any]) -> None:
    """Pass the child's answers on; None when there will be no more."""
    try:
        with stream:
            while True:
                answers.put(pickle.load(stream))
    except (EOFError, OSError, pickle.UnpicklingError, ValueError):
        answers.put(None)


def main() -> None:
    """Be the child: take programs from stdin, send solutions to stdout."""
    end_with_parent()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whatever else is printed goes nowhere

    def send(message: object) -> None:
        pickle.dump(message, out)
        out.flush()

    while True:
        try:
            program, gap, end, start, good_enough = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            # The monotonic clock counts from the start of the machine, for parent and child alike.
            left_s = max(end - time.monotonic(), 0.0)
            found = run(program, gap=gap, time_limit_s=left_s, start=start, good_enough=good_enough, on_better=send)
            send(_Last(found))
        except SolverError as error:
            send(error)


if __name__ == "__main__":
    # As a module of its own name, so that what is pickled here is known by the same name there.
    from inferno_milp.program import highs_child

    highs_child.main()
