"""ONNX: network and weights in one file, for onnxruntime and all that reads ONNX.

The number of images is free; their size is the network's.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilum.client.export.agreement import check_agreement, in_words, without_chatter
from hilum.client.export.exportable import Exportable
from hilum.common.errors import RunError

FILE = "model.onnx"
INPUT = "image"
TOLERANCE = 1e-4
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


def check_installed() -> None:
    """Say what is missing.

    Raises:
        RunError: If one of the extra's packages is.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise RunError(
            f"ONNX needs {', '.join(missing)}, which this installation lacks: pip install 'hilum[onnx]', and export again"
        )


def write_onnx(source: Exportable, folder: Path) -> str:
    """Write `model.onnx`, and say in one line what was checked.

    Raises:
        RunError: If packages are missing, the network can't be held, or onnxruntime gives other results.
    """
    check_installed()
    path = folder / FILE
    batch = torch.export.Dim("batch", min=1, max=2**31 - 1)
    try:
        with without_chatter(), torch.no_grad():
            program = torch.onnx.export(
                source.module,
                (source.example(2),),
                dynamo=True,
                dynamic_shapes=({0: batch},),
                input_names=[INPUT],
                output_names=[source.output],
                verbose=False,
            )
            assert program is not None, "what dynamo gives"
            program.model.metadata_props.update(source.description())
            program.save(path)
    except Exception as error:  # torch raises what it likes, with pages of its own code
        raise RunError(
            f"ONNX can't hold this network ({type(error).__name__}); `--to torch` or `--to safetensors` may"
        ) from None
    session = _session(path)
    worst = check_agreement(source, lambda images: _run(session, images), TOLERANCE, "the ONNX file")
    return f"{FILE}: ONNX, which under onnxruntime {in_words(worst)}"


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(session: Any, images: Tensor) -> Any:
    return session.run(None, {INPUT: images.numpy()})[0]
