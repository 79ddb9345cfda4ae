"""The folder of exported files: read what is certified in it, and replace its files once all of them are right."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from bnmodel.deploy import certificate, golden
from bnmodel.deploy.checks import Check
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.golden import Golden
from bnmodel.deploy.loading import FORMATS
from bnmodel.io import LOCK, folder_lock

PATIENCE = 60.0  # seconds to wait for another export into the same folder
ABANDONED = 86400.0  # seconds after which nobody exports into a temporary folder any more


def others_in(folder: Path, *names: str) -> tuple[certificate.Models, dict[str, Golden], list[Check]]:
    """The models certified in the folder other than `names`, their golden vectors and what was measured of them.

    Raises:
        ExportError: the folder's certificate or its golden vectors cannot be read.
    """
    if not (folder / certificate.FILE).exists():
        return {}, {}, []
    content = certificate.read(folder / certificate.FILE)
    others = {stem: model for stem, model in certificate.models(folder).items() if stem not in names}
    files = {f"{stem}.{format}" for stem, model in others.items() for format in model.formats}
    vectors = golden.read(folder / golden.FILE) if others else {}
    before = [Check(**check) for check in content["measured"] if check["file"] in files]
    return others, {stem: vectors[stem] for stem in others if stem in vectors}, before


def copy_others(folder: Path, scratch: Path, others: certificate.Models) -> None:
    """Copy the files of other models, so that the new certificate covers them too."""
    for stem, model in others.items():
        for format in model.formats:
            source = folder / f"{stem}.{format}"
            if not source.is_file():
                raise ExportError(f"{source}: no such file, though the folder's certificate names it; certify it again")
            shutil.copyfile(source, scratch / source.name)


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder inside `target`, removed at the end, as are `target` and its parents if new and empty."""
    if target.exists() and not target.is_dir():
        raise ExportError(f"folder: expected a folder, received the file {target}")
    new = [folder for folder in (target, *target.parents) if not folder.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        for left in target.glob(".export-*"):  # by a killed process
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as name:
            yield Path(name)
    except OSError as error:
        raise ExportError(f"{target}: cannot be written ({error}); free the disk or choose another folder") from error
    finally:
        if new and target.is_dir() and {path.name for path in target.iterdir()} <= {LOCK}:
            shutil.rmtree(target)
            for folder in new[1:]:
                with suppress(OSError):  # not empty: another process uses it
                    folder.rmdir()


def publish(scratch: Path, target: Path, *stems: str) -> None:
    """Move the files of `scratch` into `target`, the certificate last.

    stems: of the networks that are written; their earlier files that are not written again are removed.
    """
    new = {path.name for path in scratch.iterdir()}
    if in_the_way := sorted(name for name in new if (target / name).is_dir()):
        raise ExportError(f"{target / in_the_way[0]}: expected a file or nothing, received a folder; move it away")
    for path in sorted(scratch.iterdir(), key=lambda path: path.name == certificate.FILE):
        path.replace(target / path.name)
    for name in {f"{stem}.{format}" for stem in stems for format in FORMATS} - new:
        (target / name).unlink(missing_ok=True)


def exclusive(target: Path) -> AbstractContextManager[None]:
    """Lock `target`, while what is certified there is read and replaced, waiting for other exports."""
    return folder_lock(target, PATIENCE, "export")
