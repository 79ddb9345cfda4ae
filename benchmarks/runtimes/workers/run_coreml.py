"""Core ML: converted only, since it runs on Apple's systems."""

import coremltools
import torch
from common import Job, Loaded, main


def load(work: Job) -> Loaded:
    program = torch.export.load(work.file("pt2")).run_decompositions({})
    file = work.folder / f"{work.stem}.mlpackage"
    coremltools.convert(program, minimum_deployment_target=coremltools.target.iOS17).save(str(file))
    return Loaded(None, coremltools.__version__, [one for one in file.rglob("*") if one.is_file()])


if __name__ == "__main__":
    main(load)
