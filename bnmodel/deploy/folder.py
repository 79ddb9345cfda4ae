"""The folder of exported files: what is certified in it already, and writing all of it or nothing."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bnmodel.deploy import certificate, golden
from bnmodel.deploy.checks import Check
from bnmodel.deploy.errors import ExportError
from bnmodel.deploy.golden import Golden
from bnmodel.deploy.loading import FORMATS


def others_in(folder: Path, name: str) -> tuple[certificate.Models, dict[str, Golden], list[Check]]:
    """What else is certified in the folder: models, their golden vectors and what was measured of them.

    Raises:
        ExportError: there is a certificate, and it or its golden vectors cannot be read.
    """
    if not (folder / certificate.FILE).exists():
        return {}, {}, []
    content = certificate.read(folder / certificate.FILE)
    found = certificate.models(folder)
    others = {stem: model for stem, model in found.items() if stem != name}
    files = {f"{stem}.{format}" for stem, model in others.items() for format in model.formats}
    vectors = golden.read(folder / golden.FILE) if others else {}
    before = [Check(**check) for check in content["measured"] if check["file"] in files]
    return others, {stem: vectors[stem] for stem in others if stem in vectors}, before


def copy_others(folder: Path, scratch: Path, others: certificate.Models) -> None:
    """Copy the files of other models, so that the new certificate can be made of all of them."""
    for stem, model in others.items():
        for format in model.formats:
            source = folder / f"{stem}.{format}"
            if not source.is_file():
                raise ExportError(f"{source}: no such file, though the folder's certificate names it; certify it again")
            shutil.copyfile(source, scratch / source.name)


@contextmanager
def staging(target: Path, *stems: str) -> Iterator[Path]:
    """A folder inside `target` in which everything is made; moved into place at the end, removed on any error.

    stems: of the networks that are written; their earlier files that are not written again are removed.
    """
    made = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as name:
            folder = Path(name)
            yield folder
            new = {path.name for path in folder.iterdir()}
            for path in sorted(folder.iterdir(), key=lambda path: path.name == certificate.FILE):  # certificate last
                path.replace(target / path.name)
            for stem in stems:
                for format in FORMATS:
                    if f"{stem}.{format}" not in new:
                        (target / f"{stem}.{format}").unlink(missing_ok=True)
        made = False
    except OSError as error:
        raise ExportError(f"{target}: cannot be written ({error}); free the disk or choose another folder") from error
    finally:
        if made and target.is_dir() and not any(target.iterdir()):
            target.rmdir()
