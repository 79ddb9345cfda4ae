"""Freed memory is reused without page faults."""

import subprocess
import sys

import pytest

PAGES = """
import resource, torch
from bnmodel.training.allocator import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
def some_steps(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        tensors = [torch.ones(10_000_000) for _ in range(2)]  # 40 MB each: more than glibc ever keeps of its own accord
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
some_steps(2)
print(some_steps(3))
"""


def page_faults(kept: bool) -> int:
    command = [sys.executable, "-c", PAGES.format(kept=kept)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_freed_memory_is_reused_without_page_faults() -> None:
    otherwise = page_faults(kept=False)
    assert otherwise > 10_000  # of 4 kB: the problem exists
    # one of three processes: with an unfavourable heap layout, a small block occupies the place of a large one
    assert any(page_faults(kept=True) < otherwise / 4 for _ in range(3))
