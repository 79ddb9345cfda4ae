"""Precompute what the controls of a tab may ask for while a visitor looks at the tab; the experiments cache it."""

import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache

from demo.models import Model

PRIORITY = 10  # niceness: a tenth of the processor time of the threads that answer


@lru_cache(maxsize=32)
def compute_ahead(compute: Callable[[Model], object], model: Model) -> threading.Thread:
    """Call `compute(model)` in a background thread, once per model."""

    def run() -> None:
        if sys.platform == "linux":  # elsewhere this would set the priority of the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
        compute(model)

    thread = threading.Thread(target=run, name="compute ahead", daemon=True)
    thread.start()
    return thread
