"""The benchmarks name modules and test files that exist."""

from importlib.util import find_spec

import pytest

from benchmarks import ROOT, faults
from benchmarks.__main__ import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_make_bench_is_a_module(command: str) -> None:
    assert find_spec(command.split()[0]) is not None


@pytest.mark.parametrize("file", faults.TESTS.values())
def test_every_file_of_tests_that_is_counted_exists(file: str) -> None:
    assert (ROOT / "tests" / file).exists()
