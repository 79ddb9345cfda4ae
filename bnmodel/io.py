"""Atomic writes, JSON files with a checksum, a lock per folder, and output in any encoding."""

import hashlib
import io
import json
import math
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".lock"
TEMPORARY = ".writing-"  # prefix of files still being written
CHECKSUM_KEYS = ("checksum", "seal")  # "seal" in files of older versions


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds, else delete it.

    The file keeps its permissions; a new one has the usual ones. A symbolic link keeps pointing to the file.

    Raises:
        OSError: the folder is not writable or the disk is full; an existing file at `path` is unchanged.
    """
    path, temporary = Path(path), None
    path = path.resolve() if path.is_symlink() else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        created = path.with_name(f"{TEMPORARY}{path.stem}-{secrets.token_hex(8)}{path.suffix}")
        os.close(os.open(created, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the umask
        temporary = created
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def without_infinities(value: Any) -> Any:
    """The same JSON value with None for NaN and infinite numbers, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON object without its stored checksum, independent of key order and formatting.

    Detects damage and edits, but not forgery, since there is no secret key.
    """
    unsigned = {key: value for key, value in content.items() if key not in CHECKSUM_KEYS}
    return hashlib.sha256(json.dumps(unsigned, sort_keys=True).encode()).hexdigest()


def stored_checksum(content: dict[str, Any]) -> str | None:
    """The checksum in a JSON object, or None."""
    return next((content[key] for key in CHECKSUM_KEYS if key in content), None)


def write_checked(path: Path | str, content: dict[str, Any]) -> None:
    """Write a JSON object with its checksum, atomically."""
    text = json.dumps({**content, CHECKSUM_KEYS[0]: checksum(content)}, indent=1, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_checked(path: Path | str) -> dict[str, Any]:
    """Read a JSON object written by `write_checked`, without its checksum.

    Raises:
        ValueError: not a JSON object, no checksum, or changed since it was written.
        OSError: the file cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_float=_exact_float)
    except RecursionError:
        raise ValueError("expected a JSON object, received JSON nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, received {type(content).__name__}")
    expected, received = stored_checksum(content), checksum(content)
    if expected is None:
        raise ValueError("expected a checksum, received none: written by an older version, or edited")
    if expected != received:
        raise ValueError(f"expected checksum {expected!s:.12}…, received {received:.12}…: changed since it was written")
    return {key: value for key, value in content.items() if key not in CHECKSUM_KEYS}


def _exact_float(text: str) -> float:
    """Reject a number that Python would write differently: an edited 17th digit may leave the float unchanged."""
    if repr(float(text)) != text:
        raise ValueError(f"expected {float(text)!r}, received {text}: changed since it was written")
    return float(text)


@contextmanager
def folder_lock(folder: Path, wait: float = 0.0, purpose: str = "training") -> Iterator[None]:
    """Lock `folder` for this process until the block ends, and delete temporary files left by a killed process.

    Args:
        wait: seconds to wait for a process that holds the lock.
        purpose: what this process does, for the error.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the folder is not writable.
    """
    lock = FileLock(folder / LOCK, timeout=wait)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BlockingIOError(
            f"{folder}: another {purpose} is writing to this folder; wait for it to end, or use another folder"
        ) from None
    except OSError as error:
        raise _explained(folder, error) from error
    try:
        for leftover in folder.glob(f"{TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def replace_unprintable() -> None:
    """Print “?” for symbols that the encoding of standard output or error lacks; otherwise `print` would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _explained(path: Path, error: OSError) -> OSError:
    message = (
        f"{path}: cannot be written ({error.strerror or error}); free some space, or use a writable folder. "
        f"Existing files are unchanged"
    )
    return OSError(error.errno, message)
