"""What a training frees, it can have again without asking the system."""

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


def pages_asked_for(kept: bool) -> int:
    command = [sys.executable, "-c", PAGES.format(kept=kept)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_freed_memory_is_used_again_and_not_asked_for_page_by_page() -> None:
    otherwise = pages_asked_for(kept=False)
    assert otherwise > 10_000  # of 4 kB; or there is nothing to mend
    # the best of three processes: where the heap is laid out unluckily, a small block takes a large one's place
    assert min(pages_asked_for(kept=True) for _ in range(3)) < otherwise / 4
