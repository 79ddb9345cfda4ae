"""Limits of this process, set once its libraries are loaded."""

import os
from typing import Any

try:
    import resource
except ImportError:  # Windows: only the parent's timeout holds
    resource = None  # type: ignore[assignment]


def apply_limits(limits: dict[str, Any]) -> None:
    """Limit memory beyond what is in use now, processor time and the size of written files."""
    if resource is None or not os.path.exists("/proc/self/statm"):
        return
    with open("/proc/self/statm", encoding="ascii") as file:
        in_use = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for kind, value in (
        (resource.RLIMIT_AS, in_use + limits["memory"]),
        (resource.RLIMIT_CPU, limits["seconds"]),
        (resource.RLIMIT_FSIZE, limits["file_size"]),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (limit, hard))
