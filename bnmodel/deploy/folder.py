"""The folder of exported files: read what is certified in it, and replace its files all at once or not at all."""

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
    """The other models certified in the folder, their golden vectors and what was measured of them.

    Raises:
        ExportError: the folder's certificate or its golden vectors cannot be read.
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
    """Copy the files of other models, so that the new certificate covers them too."""
    for stem, model in others.items():
        for format in model.formats:
            source = folder / f"{stem}.{format}"
            if not source.is_file():
                raise ExportError(f"{source}: no such file, though the folder's certificate names it; certify it again")
            shutil.copyfile(source, scratch / source.name)


@contextmanager
def staging(target: Path, *stems: str) -> Iterator[Path]:
    """A temporary folder inside `target`; its files are moved into `target` at the end, and removed on any error.

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
