"""Compute, while a visitor looks at a tab, what its controls will ask for; the experiments keep their results."""

import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache

from demo.models import Model

PRIORITY = 10  # as of `nice`: a tenth of the time of the threads that answer


@lru_cache(maxsize=32)
def compute_ahead(compute: Callable[[Model], object], model: Model) -> threading.Thread:
    """Call `compute(model)` in a background thread, once per model."""

    def run() -> None:
        if sys.platform == "linux":  # elsewhere it would be the priority of the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        compute(model)

    thread = threading.Thread(target=run, name="compute ahead", daemon=True)
    thread.start()
    return thread
