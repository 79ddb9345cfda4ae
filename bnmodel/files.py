"""Files that are either the old one or the new one, never half of either; and a folder that one process writes to."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
