"""The error of every failed export, load and verification."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ExportError(Exception):
    """A network or a folder cannot be exported or loaded; the message says what was found and the remedy."""


@contextmanager
def as_export_error(what: str) -> Iterator[None]:
    """Raise an ExportError in place of any other error of torch, a runtime or the network."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"{what}: {type(error).__name__}: {first_line(error)}; see the cause above") from error


def as_path(name: str, value: Path | str) -> Path:
    """The path of an argument; ExportError if it is of another type."""
    if not isinstance(value, (str, os.PathLike)):
        raise ExportError(f"{name}: expected a path, received {value!r}")
    if "\0" in os.fsdecode(value):
        raise ExportError(f"{name}: expected a path, received {value!r}, which has a null character")
    return Path(value)


def not_installed(package: str | None) -> str:
    """The message for a missing optional dependency."""
    return f'{package}: expected to be installed; pip install "batchnorm-lab[deploy]"'


def first_sentence(error: BaseException, limit: int = 200) -> str:
    """The first sentence of an error's message without its final full stop, or the error's type if it has none."""
    return re.split(r"\.(?= |$)|, please report a bug", first_line(error, limit))[0]


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line of an error's message, or its type if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:limit]
