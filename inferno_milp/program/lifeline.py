"""A process that ends with the one that started it, also if that was killed."""

from __future__ import annotations

import os
import threading
import time

EVERY_S = 0.5


def end_with_parent(parent: int | None = None) -> None:
    """End this process soon after its parent has ended, whatever it is doing by then.

    Parameters
    ----------
    parent : process id of the parent, from itself: it may have ended before this is called.
    """
    parent = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
