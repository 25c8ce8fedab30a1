"""From the folders that Hilum writes to what can be exported."""

from pathlib import Path

from hilum.client.export.exportable import Exportable
from hilum.common.errors import RunError
from hilum.common.pretrained import load_encoder

NO_LICENCE = "not stated; the sites whose images it was trained on decide"


def read_exportable(place: Path, licence: str | None = None) -> Exportable:
    """Read a finished run, or the `encoder` folder of one.

    Args:
        place: The folder.
        licence: Under which the weights may be used.

    Raises:
        RunError: If there is no encoder.
        DamagedError: If a file is damaged.
    """
    if not place.is_dir():
        raise RunError("there is no such folder; give a finished run, or its `encoder` folder")
    folder = place if (place / "manifest.json").exists() else place / "encoder"
    found = load_encoder(folder)
    facts = found.manifest["architecture"]
    return Exportable(
        kind="encoder",
        name=found.manifest["study"],
        module=found.encoder,
        data=found.data,
        output="features",
        output_words=f"{facts['width']} features, the {facts['pooling']}",
        names=(),
        sha256=found.sha256,
        folder=folder,
        manifest=found.manifest,
        card=(folder / "MODEL_CARD.md").read_text(),
        licence=licence or NO_LICENCE,
    )
