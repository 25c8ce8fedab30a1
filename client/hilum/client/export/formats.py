"""The one list of formats, and the one function that exports: all that was asked for, or nothing."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from hilum.client.export.card import results_of, whole_card
from hilum.client.export.exportable import Exportable
from hilum.client.export.monai_bundle import write_bundle
from hilum.client.export.onnx_file import write_onnx
from hilum.client.export.reading import read_exportable
from hilum.client.export.safetensors_folder import CARD, write_safetensors
from hilum.client.export.timm_vit import write_timm
from hilum.client.export.torch_program import write_program
from hilum.common.errors import ConfigError
from hilum.common.files import write_text
from hilum.common.output_folder import check_output_folder

FORMATS: dict[str, Callable[[Exportable, Path], str]] = {
    "safetensors": write_safetensors,
    "timm": write_timm,
    "torch": write_program,
    "onnx": write_onnx,
    "monai": write_bundle,
}
"""What writes each into a folder, and says in one line what it wrote; the quickest to refuse come first."""


def export(
    place: Path,
    out: Path,
    formats: Sequence[str],
    *,
    licence: str | None = None,
    descriptions: Sequence[Path] = (),
) -> list[str]:
    """Write an encoder or a model in other formats, each checked against the network.

    Args:
        place: A finished run, the `encoder` folder of one, or a fine-tuned model's folder.
        out: New or empty; it is there when all is written and checked.
        formats: Of `FORMATS`.
        licence: Under which the weights may be used, for the card and the files.
        descriptions: What `hilum site describe --json` printed, for the card.

    Returns:
        A line for each format: what was written, and how near to the network its results are.

    Raises:
        ConfigError: If a format is not known.
        RunError: If there is no encoder or model, a format can't hold it, or `out` holds something.
        DamagedError: If a file is damaged.
        DataError: If a description is none.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ConfigError(
            "--to", [f"{', '.join(unknown) or 'nothing'} is not a format; give {', '.join(FORMATS)}"]
        )
    check_output_folder(out)
    source = read_exportable(place, licence)
    card = whole_card(source, results_of(source), descriptions)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.absolute().parent))
    try:
        said = [write(source, aside) for name, write in FORMATS.items() if name in formats]
        write_text(aside / CARD, card)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return [*said, f"{CARD}: what it is, and what was measured"]
