"""Its own files: the tensors as safetensors, and the manifest that describes them. The card lies beside them in every export."""

import shutil
from pathlib import Path

from hilum.client.export.exportable import Exportable

TENSORS, MANIFEST, CARD = "model.safetensors", "manifest.json", "MODEL_CARD.md"


def write_safetensors(source: Exportable, folder: Path) -> str:
    """Write `model.safetensors` and `manifest.json`, byte by byte as they are."""
    for name in (TENSORS, MANIFEST):
        shutil.copyfile(source.folder / name, folder / name)
    return f"{TENSORS}, {MANIFEST}: tensors by their own names, and what is not in them"
