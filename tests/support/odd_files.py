"""What tests put into an archive beside or inside odd files."""

import io
import zipfile

import numpy as np

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)


def zipped(name="image.dcm"):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        if name:
            packed.writestr(name, "x")
    return content.getvalue()
