"""Freed memory stays with the process.

A training step takes and frees the same tensors over and over. glibc hands large ones back to the system each time, and
the system hands them out again page by page, zeroed: that can take longer than the arithmetic on them.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 2**30  # bytes


def keep_freed_memory() -> bool:
    """Until this process ends, malloc keeps what is freed, for the next tensor. False where it is not glibc's."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, LARGEST) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
