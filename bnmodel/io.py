"""Files that are either the old one or the new one, never half of either, and tell if they were changed since; and a
folder that one process writes to."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

TEMPORARY = ".writing-"  # how the names of files begin that are not whole yet


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; put it in its place when the block succeeds, delete it when not.

    Raises:
        OSError: the folder cannot be written to or the disk is full; whatever was at `path` is untouched.
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f"{TEMPORARY}{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would keep other users of a shared machine out
        os.replace(temporary, path)
    except OSError as error:
        raise _in_words(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def seal(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON object, in whichever order and layout it is written; its own "seal" does not count."""
    unsealed = {key: value for key, value in content.items() if key != "seal"}
    return hashlib.sha256(json.dumps(unsealed, sort_keys=True).encode()).hexdigest()


def write_sealed(path: Path | str, content: dict[str, Any]) -> None:
    """Write a JSON object with its `seal`, atomically."""
    text = json.dumps({**content, "seal": seal(content)}, indent=1, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_sealed(path: Path | str) -> dict[str, Any]:
    """A sealed JSON object, without its seal. One that has none, as older versions wrote it, is not trusted either.

    Raises:
        ValueError: the file is no JSON object, or was changed after it was sealed.
        OSError: it cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_float=_number)
    except RecursionError:
        raise ValueError("expected a JSON object, received brackets without end") from None
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, received {type(content).__name__}")
    expected, received = content.pop("seal", None), seal(content)
    if expected is None:
        raise ValueError("expected a seal, received none: of an older version, or changed")
    if expected != received:
        raise ValueError(f"expected contents with the seal {expected!s:.12}…, received {received:.12}…: changed since")
    return content


def _number(digits: str) -> float:
    """As it was written: the last of 17 digits may change and the number stay the same, but the file was changed."""
    if repr(float(digits)) != digits:
        raise ValueError(f"expected {float(digits)!r}, received {digits}: changed since it was sealed")
    return float(digits)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold `folder` against any other process that asks for it, as long as the block or this process lasts.

    What a process that was killed left half written is deleted.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the folder cannot be written to.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BlockingIOError(
            f"{folder}: another training writes to this folder; wait for its end, or choose another folder with --out"
        ) from None
    except OSError as error:
        raise _in_words(folder, error) from error
    try:
        for leftover in folder.glob(f"{TEMPORARY}*"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _in_words(path: Path, error: OSError) -> OSError:
    remedy = "free some space, or choose a folder that you may write to"
    words = f"{path}: cannot be written ({error.strerror or error}); {remedy}. What was there is untouched"
    return OSError(error.errno, words)
