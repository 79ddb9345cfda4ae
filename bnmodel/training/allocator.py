"""Reuse of freed memory within the process.

Every training step allocates and frees the same tensors. glibc returns large blocks to the system each time, and page
faults on new ones can take longer than the arithmetic on them.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
LARGEST = 2**30  # bytes


def keep_freed_memory() -> bool:
    """Let malloc reuse freed memory for the rest of this process. False if the C library is not glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, LARGEST) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
