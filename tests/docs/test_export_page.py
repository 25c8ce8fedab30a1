"""The lines of `docs/how-to/export.md` run as they stand where Hilum can't be imported, and give the encoder's features."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from exported_encoders import environment_without_hilum, make_encoder
from hilum.client.export.formats import FORMATS, export
from hilum.common import load_encoder
from places import ROOT

PAGE = (ROOT / "docs" / "how-to" / "export.md").read_text()


def block(title, kind="python"):
    return re.search(rf'```{kind} title="{title}"\n(.*?)```', PAGE, flags=re.DOTALL)[1]


@pytest.fixture
def alone(tmp_path):
    environment = environment_without_hilum(tmp_path / "no-hilum")

    def run(command, cwd=tmp_path):
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=500
        )

    assert "Hilum is not here" in run([sys.executable, "-c", "import hilum.common"]).stderr
    return run


def features_of(alone, blocks, cwd):
    """Run several of the page's blocks in one process; each where its files lie."""
    code = ["import os", f"home = {str(cwd)!r}"]
    for title, place in blocks.items():
        code += [f"os.chdir({str(place)!r})", block(title), f"np.save(f'{{home}}/{title}.npy', features)"]
    done = alone([sys.executable, "-c", "\n".join(code)], cwd)
    assert done.returncode == 0, done.stderr
    return {title: np.load(cwd / f"{title}.npy") for title in blocks}


@pytest.mark.parametrize("kind", ["vit 2D", "resnet 2D", "vit 3D", "resnet 3D"])
def test_the_pages_lines_give_the_encoders_features_without_hilum(alone, tmp_path, kind):
    make_encoder(kind, tmp_path / "run")
    timm = ["timm"] if kind == "vit 2D" else []
    export(tmp_path / "run", tmp_path / "out", ["onnx", "torch", "monai", "safetensors", *timm])
    found = load_encoder(tmp_path / "run")
    batch = images_of(found, 3)
    with torch.no_grad():
        expected = found.encoder(batch).numpy()
    bundle = tmp_path / "out" / "bundle"
    for place in (tmp_path, bundle):
        np.save(place / "batch.npy", batch.numpy())
    blocks = {"onnx": tmp_path, "torch": tmp_path, "monai": bundle}
    if timm and find_spec("timm"):
        blocks["timm"] = tmp_path
    for title, given in features_of(alone, blocks, tmp_path).items():
        np.testing.assert_allclose(given, expected, atol=1e-4, err_msg=title)
    done = alone([sys.executable, "-c", block("safetensors")])
    assert done.returncode == 0, done.stderr


def images_of(found, count):
    shape = found.data.facts.channels, *found.data.view_size
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(5))


def test_monais_own_command_runs_a_bundle_without_hilum_wherever_it_lies(alone, tmp_path):
    make_encoder("resnet 3D", tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out", ["monai"])
    place = tmp_path / "elsewhere"
    shutil.move(tmp_path / "out" / "bundle", place)
    found = load_encoder(tmp_path / "run")
    batch = images_of(found, 9)  # more than a batch of the bundle's
    for number, image in enumerate(batch):
        np.save(place / "images" / f"image-{number}.npy", image.numpy())
    done = alone([sys.executable, *shlex.split(block("monai", "sh"))[1:]], place)
    assert done.returncode == 0, done.stderr
    given = np.stack([np.load(place / "output" / f"image-{number}.npy") for number in range(9)])
    with torch.no_grad():
        np.testing.assert_allclose(given, found.encoder(batch).numpy(), atol=1e-4)


def test_a_radiograph_is_prepared_without_hilum_as_with_it(alone, tmp_path):
    make_encoder("resnet 2D", tmp_path / "run")
    image = np.random.default_rng(4).integers(0, 65536, (50, 37)).astype(np.uint16)
    np.save(tmp_path / "image.npy", image)
    done = alone([sys.executable, "-c", block("radiograph")])
    assert done.returncode == 0, done.stderr
    ours = load_encoder(tmp_path / "run").prepare(image).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "batch.npy"), ours, atol=2e-5)  # ours are kept in 16 bits


def test_the_pages_table_names_every_format():
    assert re.findall(r"^\| `([a-z]+)` \|", PAGE, flags=re.MULTILINE) == [
        "onnx", "torch", "monai", "timm", "safetensors"
    ]  # fmt: skip
    assert set(FORMATS) == {"onnx", "torch", "monai", "timm", "safetensors"}
