"""Freed memory goes back to the operating system."""

import ctypes
import platform
from pathlib import Path

import pytest

from demo.server.memory import return_freed_memory

BLOCK, COUNT = 100_000, 2000  # bytes; small enough to be taken from the heap


def resident() -> int:
    """MB"""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_freed_memory_is_returned_although_the_end_of_the_heap_is_in_use() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    *others, last = blocks
    for block in others:
        libc.free(block)
    before = resident()
    assert return_freed_memory()
    assert before - resident() > 100
    libc.free(last)
