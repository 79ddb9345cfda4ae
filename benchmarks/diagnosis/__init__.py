"""Benchmark of `diagnose`: networks with planted faults and healthy ones."""
