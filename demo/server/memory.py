"""Give freed memory back to the system.

glibc keeps what was freed within each thread's heap: after large images in many threads, half a gigabyte and more.
"""

import ctypes
import sys
import threading
import time

EVERY = 20.0  # seconds


def return_freed_memory() -> bool:
    """Give back what is free now; False if the C library is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is None:
        return False
    trim(0)
    return True


def keep_returning_freed_memory() -> None:
    """Do so for the rest of this process, in a thread of its own."""

    def repeat() -> None:
        while return_freed_memory():
            time.sleep(EVERY)

    threading.Thread(target=repeat, daemon=True, name="return freed memory").start()
