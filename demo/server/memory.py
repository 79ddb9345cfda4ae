"""Return freed memory to the operating system.

glibc keeps freed memory in each thread's heap: half a gigabyte and more after large images in many threads.
"""

import ctypes
import sys
import threading
import time

EVERY = 20.0  # seconds


def return_freed_memory() -> bool:
    """Return what is free now. False if the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is None:
        return False
    trim(0)
    return True


def keep_returning_freed_memory() -> None:
    """Call `return_freed_memory` every EVERY seconds, in a daemon thread."""

    def repeat() -> None:
        while return_freed_memory():
            time.sleep(EVERY)

    threading.Thread(target=repeat, daemon=True, name="return freed memory").start()
