"""A program of `torch.export`: network and weights in one file, which torch alone runs.

The number of images is free; their size is the network's.
"""

import json
from pathlib import Path

import torch
from torch.export import ExportedProgram

from hilum.client.export.agreement import check_agreement, in_words, without_chatter
from hilum.client.export.exportable import Exportable
from hilum.common.errors import RunError

FILE = "model.pt2"
TOLERANCE = 1e-5
_DESCRIPTION = "description.json"


def traced(source: Exportable) -> ExportedProgram:
    """Return the network as a graph.

    Raises:
        RunError: If it does what torch can't put into one.
    """
    batch = torch.export.Dim("batch", min=1, max=2**31 - 1)
    try:
        with without_chatter(), torch.no_grad():
            return torch.export.export(source.module, (source.example(2),), dynamic_shapes=({0: batch},))
    except Exception as error:  # torch raises what it likes, with pages of its own code
        raise RunError(
            f"torch.export can't put this network into a graph ({type(error).__name__}); `--to safetensors` holds it as it is"
        ) from None


def write_program(source: Exportable, folder: Path) -> str:
    """Write `model.pt2`, and say in one line what was checked.

    Raises:
        RunError: If the network is no graph, or the file gives other results.
    """
    path = folder / FILE
    with without_chatter():
        torch.export.save(
            traced(source), path, extra_files={_DESCRIPTION: json.dumps(source.description(), indent=2)}
        )
        again = torch.export.load(path).module()
    worst = check_agreement(source, again, TOLERANCE, "the exported program")
    return f"{FILE}: a program of torch.export, which {in_words(worst)}"
