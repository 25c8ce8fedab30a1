"""An encoder's folder alone is enough to use it, with Hilum and without."""

import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from hilum.client.data.prepared import prepare
from hilum.client.intake.indexing.index import index_archive
from hilum.client.pretraining.device import make_fabric
from hilum.client.state.workspace import Workspace
from hilum.client.tasks.features import encoder_features
from hilum.client.views import Viewer, to_unit
from hilum.common.encoders import build_encoder
from hilum.common.errors import DamagedError, HilumError, RunError
from hilum.common.export import Provenance, write_encoder
from hilum.common.methods import build_method
from hilum.common.methods.parts import federated_manifest, get_federated
from hilum.common.preparation.encoder_input import encoder_input
from hilum.common.preparation.intensity import unit_range
from hilum.common.pretrained import load_encoder
from hilum.common.progress import NullProgress

KINDS = {
    "vit": {"data": {"image_size": 32}},
    "vit 3D": {"data": {"image_size": 16, "dims": 3, "modality": "ct", "cut": "whole"}},
    "vit of patches": {"data": {"image_size": [8, 16, 24], "dims": 3, "modality": "ct", "spacing_mm": [2, 1, 1]}},
    "vit of slices": {"data": {"image_size": 16, "cut": "slices", "modality": "mr"}},
    "vit of photographs": {"data": {"image_size": 24, "modality": "fundus"}, "encoder": {"patch_size": 6}},
    "vit of another modality": {"data": {"image_size": 24, "modality": "mr"}, "encoder": {"patch_size": 6}},
    "resnet": {"encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"}, "data": {"image_size": 32}},
    "resnet of photographs": {
        "encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"},
        "data": {"image_size": 32, "modality": "pathology"},
    },
    "resnet with a pooled stem": {
        "encoder": {"name": "resnet", "size": "tiny"}, "method": {"name": "simclr"}, "data": {"image_size": 96},
    },
    "resnet 3D": {
        "encoder": {"name": "resnet", "size": "base"},
        "method": {"name": "simclr"},
        "data": {"image_size": 16, "dims": 3, "modality": "mr", "intensity": "zscore"},
    },
}  # fmt: skip


@pytest.fixture
def made(make_study, tmp_path):
    def make(kind="vit"):
        study = make_study(**KINDS[kind])
        method = build_method(study)
        folder = tmp_path / "encoder"
        write_encoder(folder, study, federated_manifest(method), get_federated(method), Provenance(2, 3))
        return study, method.encoder.eval(), folder

    return make


def images_of(study):
    return torch.rand(
        3, study.data.facts.channels, *study.data.view_size, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_network_back(made, kind):
    study, encoder, folder = made(kind)
    for place in (folder, folder.parent, str(folder)):
        found = load_encoder(place)
        assert found.data == study.data
        with torch.no_grad():
            assert torch.equal(found.encoder(images_of(study)), encoder(images_of(study)))


def plain_vit(facts, tensors, images):
    """What the manifest says, in torch alone."""
    dims, patch, width, heads = (facts[key] for key in ("dims", "patch_size", "width", "heads"))
    images = (images - facts["standardised"]["mean"]) / facts["standardised"]["deviation"]
    B = len(images)
    cut = images.movedim(1, -1)
    for axis in range(dims):
        cut = cut.unflatten(1 + 2 * axis, (-1, patch))
    cut = cut.permute(0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2), 2 * dims + 1)
    tokens = cut.reshape(B, math.prod(facts["grid"]), -1)
    share = width // (2 * dims)
    frequency = 10_000.0 ** (-torch.arange(share, dtype=torch.float64) / share)
    rows = []
    for cell in itertools.product(*map(range, facts["grid"])):
        waves = [wave for place in cell for wave in ((place * frequency).sin(), (place * frequency).cos())]
        rows.append(F.pad(torch.cat(waves), (0, width - 2 * dims * share)))
    linear = lambda name, x: F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])  # noqa: E731
    norm = lambda name, x: F.layer_norm(x, (width,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)  # noqa: E731
    x = linear("patch_embed", tokens) + torch.stack(rows).float()
    for k in range(facts["depth"]):
        block = f"blocks.{k}"
        q, key, v = linear(f"{block}.attention.qkv", norm(f"{block}.norm1", x)).chunk(3, -1)
        q, key, v = (one.unflatten(-1, (heads, -1)).transpose(1, 2) for one in (q, key, v))
        weight = (q @ key.transpose(-1, -2) / math.sqrt(width / heads)).softmax(-1)
        x = x + linear(f"{block}.attention.out", (weight @ v).transpose(1, 2).flatten(2))
        x = x + linear(f"{block}.mlp.2", F.gelu(linear(f"{block}.mlp.0", norm(f"{block}.norm2", x))))
    return norm("norm", x).mean(1)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("vit")])
def test_the_manifest_alone_tells_how_to_build_a_vit_in_plain_torch(made, kind):
    study, encoder, folder = made(kind)
    facts = json.loads((folder / "manifest.json").read_text())
    found = plain_vit(facts["architecture"], load_file(folder / "model.safetensors"), images_of(study))
    with torch.no_grad():
        torch.testing.assert_close(found, encoder(images_of(study)), atol=1e-5, rtol=0)


def plain_resnet(facts, tensors, images):
    conv = F.conv2d if facts["dims"] == 2 else F.conv3d
    per_group = int(facts["norm"].split("one group for ")[1].split()[0])

    def norm(name, x):
        return F.group_norm(
            x, max(1, x.shape[1] // per_group), tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        )

    def convolve(name, x, stride=1):
        weight = tensors[f"{name}.weight"]
        return conv(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    images = (images - facts["standardised"]["mean"]) / facts["standardised"]["deviation"]
    x = F.relu(norm("stem_norm", convolve("stem", images, 2)))
    if "max pooling" in facts["stem"]:
        x = (F.max_pool2d if facts["dims"] == 2 else F.max_pool3d)(x, 3, 2, 1)
    starts = {sum(facts["depths"][:stage]) for stage in range(1, 4)}
    wide = "1, 3 and 1" in facts["block"]
    for k in range(sum(facts["depths"])):
        name, stride = f"stages.{k}", 2 if k in starts else 1
        if wide:
            out = F.relu(norm(f"{name}.norm1", convolve(f"{name}.conv1", x)))
            out = F.relu(norm(f"{name}.norm2", convolve(f"{name}.conv2", out, stride)))
            out = norm(f"{name}.norm3", convolve(f"{name}.conv3", out))
        else:
            out = F.relu(norm(f"{name}.norm1", convolve(f"{name}.conv1", x, stride)))
            out = norm(f"{name}.norm2", convolve(f"{name}.conv2", out))
        if f"{name}.shortcut.0.weight" in tensors:
            x = norm(f"{name}.shortcut.1", convolve(f"{name}.shortcut.0", x, stride))
        x = F.relu(out + x)
    return x.flatten(2).mean(2)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("resnet")])
def test_the_manifest_alone_tells_how_to_build_a_resnet_in_plain_torch(made, kind):
    study, encoder, folder = made(kind)
    facts = json.loads((folder / "manifest.json").read_text())
    found = plain_resnet(facts["architecture"], load_file(folder / "model.safetensors"), images_of(study))
    with torch.no_grad():
        torch.testing.assert_close(found, encoder(images_of(study)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "vit 3D", "resnet", "vit of patches", "vit of slices"])
def test_the_cards_lines_run_as_they_stand(made, kind):
    study, encoder, folder = made(kind)
    card = (folder / "MODEL_CARD.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    rng = np.random.default_rng(0)
    axes = 2 if study.data.dims == 2 and study.data.cut == "whole" else 3
    if study.data.facts.channels == 1:
        image = rng.integers(0, 4000, (50, 40, 30)[:axes]).astype(np.float32)
    else:
        image = rng.integers(0, 256, (50, 40, 3)).astype(np.uint8)
    np.save(folder.parent / "image.npy", image)
    ending = "np.save('features.npy', features.numpy())"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ending}"],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        spacing_mm = (1.0, 1.0, 1.0) if kind == "vit of patches" else ()
        given = encoder(encoder_input(image, study.data, spacing_mm))
        expected = given if study.data.cut == "whole" else given.mean(0, keepdim=True)
    assert (len(given) > 1) == (study.data.cut != "whole")
    assert np.array_equal(np.load(folder.parent / "features.npy"), expected.numpy())
    for word in ("heads" if kind != "resnet" else "features", "mean", "load_file", study.data.modality):
        assert word in card


def test_what_one_types_first_gives_features_of_an_array(made):
    from hilum.common import load_encoder as first_typed

    study, encoder, folder = made("vit of slices")
    volume = np.random.default_rng(2).integers(0, 4000, (5, 40, 30)).astype(np.float32)
    pretrained = first_typed(folder.parent)
    batch = pretrained.prepare(volume, (3.0, 1.0, 1.0))
    assert torch.equal(batch, encoder_input(volume, study.data, (3.0, 1.0, 1.0)))
    with torch.no_grad():
        assert torch.equal(pretrained.features(volume, (3.0, 1.0, 1.0)), encoder(batch).mean(0))
    assert pretrained.manifest["encoder_sha256"] == pretrained.sha256


def test_hilum_common_brings_no_torch_before_it_is_asked_for():
    code = "import sys, hilum.common; assert 'torch' not in sys.modules; hilum.common.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("module 'hilum.common' has no attribute 'nothing'")


def test_an_image_is_prepared_as_for_training(made, workspace_of_phantoms):
    study, encoder, _folder = made()
    workspace, items, cache = workspace_of_phantoms
    packed = prepare(workspace, study.data)
    ours = encoder_features(
        encoder, packed.images, np.arange(len(packed.items)), study, make_fabric("cpu", "fp32", 1)
    )
    for row, item in enumerate(packed.items):
        batch = encoder_input(cache.get(item.content_sha256), study.data, item.spacing_mm)
        with torch.no_grad():
            np.testing.assert_allclose(encoder(batch)[0].numpy(), ours[row], atol=1e-5)
    assert len(items) == len(packed.items)


@pytest.fixture
def workspace_of_phantoms(archives, tmp_path):
    from hilum.client.state.cache import ArrayCache
    from hilum.client.state.catalogue import Catalogue

    workspace = Workspace(tmp_path / "home")
    index_archive(archives / "site-0" / "dicom", workspace, NullProgress())
    catalogue = Catalogue(workspace.catalogue)
    items = catalogue.items(family="radiograph")
    catalogue.close()
    return workspace, items, ArrayCache(workspace.cache)


def test_a_photograph_is_prepared_as_for_training(made, tmp_path):
    study, _encoder, folder = made("vit of photographs")
    picture = np.random.default_rng(3).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    picture[:10] = 0
    (tmp_path / "p").mkdir()
    Image.fromarray(picture).save(tmp_path / "p" / "a.png")
    workspace = Workspace(tmp_path / "home")
    index_archive(tmp_path / "p", workspace, NullProgress(), images="photograph")
    packed = np.array(prepare(workspace, study.data).images)
    wanted = Viewer(study.data).whole(to_unit(packed, torch.device("cpu")))
    assert torch.equal(encoder_input(picture, study.data), wanted)
    facts = json.loads((folder / "manifest.json").read_text())
    assert facts["input"]["channels"] == facts["architecture"]["channels"] == 3
    assert facts["input"]["geometry"].startswith("cut to the box around what is not black")
    assert "three channels (red, green, blue)" in (folder / "MODEL_CARD.md").read_text()


def test_colour_is_of_8_bits_and_of_modalities_that_have_it(made):
    photographs, *_ = made("vit of photographs")
    with pytest.raises(ValueError, match="a colour image is uint8, 0 to 255"):
        encoder_input(np.ones((8, 8, 3)), photographs.data)
    with pytest.raises(ValueError, match="a grey photograph has values from 0"):
        encoder_input(np.ones((8, 8)), photographs.data)
    radiographs, *_ = made()
    with pytest.raises(ValueError, match="expected an image of 2 axes"):
        encoder_input(np.ones((8, 8, 3), np.uint8), radiographs.data)


@pytest.mark.parametrize("shape", [(8,), (8, 8, 8)])
def test_an_image_of_other_axes_is_refused(made, shape):
    study, _encoder, _folder = made()
    with pytest.raises(ValueError, match="expected an image of 2 axes"):
        encoder_input(np.zeros(shape), study.data)
    with pytest.raises(ValueError, match="expected an image of 2 axes"):
        encoder_input(np.zeros((8, 8)), study.data, (1.0,))


def test_values_that_are_not_as_displayed_are_refused(made):
    study, _encoder, _folder = made()
    with pytest.raises(ValueError, match="not finite"):
        encoder_input(np.full((8, 8), np.nan), study.data)
    grey = np.linspace(0, 1, 64).reshape(8, 8)
    with pytest.raises(ValueError, match="multiply the image by 65535"):
        encoder_input(grey, study.data)
    with pytest.raises(ValueError, match="multiply the image by 257"):
        encoder_input((grey * 255).astype(np.uint8), study.data)
    assert encoder_input(grey * 65535, study.data).max() > 0.5


def test_the_card_and_the_manifest_tell_how_a_volume_comes_to_patches(made):
    _study, _encoder, folder = made("vit of patches")
    geometry = json.loads((folder / "manifest.json").read_text())["input"]["geometry"]
    assert geometry in (folder / "MODEL_CARD.md").read_text()
    for words in (
        "resampled to 2 x 1 x 1 mm",
        "patches of 8 x 16 x 24 voxels",
        "mean over those that show something",
    ):
        assert words in geometry


def test_an_encoder_of_before_volumes_were_cut_is_read_as_one_of_whole_volumes(made):
    study, encoder, folder = made("vit 3D")
    keys = ("cut", "spacing_mm", "per_volume", "window_hu", "intensity")
    change(folder, lambda facts: [facts["data"].pop(key) for key in keys])
    found = load_encoder(folder)
    assert found.data == study.data
    assert torch.equal(found.encoder.norm.weight, encoder.norm.weight)


def change(folder, edit):
    path = folder / "manifest.json"
    facts = json.loads(path.read_text())
    edit(facts)
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda facts: facts["architecture"].update(heads=6),
            "another network than this version builds .heads differ",
        ),
        (lambda facts: facts["architecture"].update(patch_size=4), "patch_size differ"),
        # Of a version that did not standardise: its weights would see other values than they were trained on.
        (lambda facts: facts["architecture"].pop("standardised"), "standardised differ"),
        (lambda facts: facts["encoder"].update(size="small"), "another network"),
        (lambda facts: facts["encoder"].update(heads=6), "damaged, or of another version"),
        (lambda facts: facts["data"].update(image_size=30), "damaged, or of another version"),
        (lambda facts: facts.pop("encoder"), "damaged, or of another version"),
        (lambda facts: facts.update(encoder_sha256="0"), "does not have the SHA-256"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(made, edit, words):
    _study, _encoder, folder = made()
    change(folder, edit)
    with pytest.raises(HilumError, match=words):
        load_encoder(folder)


def test_tensors_that_do_not_fit_are_refused(made):
    from hilum.common.weights import sha256_of

    _study, _encoder, folder = made()
    whole = load_file(folder / "model.safetensors")
    for broken in (
        {name: value for name, value in whole.items() if name != "norm.weight"},
        {**whole, "more": torch.zeros(2)},
        {**whole, "norm.weight": torch.zeros(3)},
    ):
        save_file(broken, folder / "model.safetensors")
        digest = sha256_of({name: value.numpy() for name, value in broken.items()})
        change(folder, lambda facts, digest=digest: facts.update(encoder_sha256=digest))
        with pytest.raises(DamagedError, match="not those of the network"):
            load_encoder(folder)
    (folder / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(DamagedError, match="damaged"):
        load_encoder(folder)
    with pytest.raises(RunError, match="no encoder in this folder"):
        load_encoder(folder.parent.parent)


def test_values_become_the_same_share_of_the_range_that_the_manifest_states(made):
    study, _encoder, folder = made("vit 3D")
    assert (
        "-1000 is 0 and 1000 is 1" in json.loads((folder / "manifest.json").read_text())["input"]["intensity"]
    )
    assert unit_range(np.array([-2000.0, -1000, 0, 1000, 3000]), study.data.facts).tolist() == [
        0,
        0,
        0.5,
        1,
        1,
    ]
    assert build_encoder(study).architecture()["dims"] == 3
