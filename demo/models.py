"""Load the checkpoint folders that the app offers; damaged ones are left out."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bnmodel import CheckpointError, load_checkpoint
from bnmodel.deploy import certificate
from bnmodel.deploy.errors import ExportError
from bnmodel.experiments.cache import hold_constant
from bnmodel.training.history import HISTORY, History
from export import bench
from export.recogniser import Recognizer, available, load


@dataclass(frozen=True, eq=False)
class Model:
    """One checkpoint folder, loaded once: the exported files, and the network they were made from (eval mode)."""

    folder: Path
    recognizer: Recognizer
    network: nn.Module

    @property
    def name(self) -> str:
        return self.folder.name


def load_models(checkpoints: Path) -> tuple[dict[str, Model], dict[str, str]]:
    """Load every exported model below `checkpoints`.

    Returns:
        The sound models by name, and what is wrong with the damaged ones by name.

    Raises:
        FileNotFoundError: no model is sound.
    """
    sound, unsound = {}, {}
    for folder in available(checkpoints):
        try:
            sound[folder.name] = load_model(folder)
        except (CheckpointError, ExportError) as error:
            unsound[folder.name] = str(error).replace(f"{checkpoints}{os.sep}", "")  # visitors do not see the path
            logging.getLogger(__name__).warning("%s is left out: %s", folder.name, error)
    if not sound:
        damaged = "; ".join(unsound.values())
        raise FileNotFoundError(
            f"{checkpoints}: expected a folder with exported files, received {damaged or 'none'}; export one: "
            f"python -m export {checkpoints}/lecture"
        )
    return sound, unsound


def load_model(folder: Path) -> Model:
    """Load one folder, and read every file that the app will need.

    Raises:
        CheckpointError, ExportError: a file is missing, damaged or not the one in the certificate.
    """
    broken = [check for check in certificate.intact(folder) if not check.passed]
    if broken:
        raise ExportError(
            f"{folder}: {'; '.join(f'{check.file}: {check.detail}' for check in broken)}; export it again: "
            f"python -m export {folder}"
        )
    if (folder / HISTORY).exists():
        History.read(folder / HISTORY)
    bench.read_rows(folder)
    network = load_checkpoint(folder).model
    hold_constant(network)
    return Model(folder, load(folder), network)
