"""What an export writes, what it refuses, and that nothing is half-written."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from exported_encoders import make_encoder
from hilum.client.export import monai_bundle, onnx_file, torch_program
from hilum.client.export.agreement import check_agreement
from hilum.client.export.exportable import Exportable, largest_difference
from hilum.client.export.formats import FORMATS, export
from hilum.client.export.onnx_file import write_onnx
from hilum.client.export.reading import read_exportable
from hilum.client.export.torch_program import write_program
from hilum.common import load_encoder
from hilum.common.encoders.warm_start import warm_start
from hilum.common.errors import ConfigError, DamagedError, RunError
from hilum.common.methods import build_method


@pytest.fixture
def made(tmp_path):
    def make(kind):
        return make_encoder(kind, tmp_path / "run"), tmp_path / "run"

    return make


def timm_forward(tensors, config, images):
    """What timm's VisionTransformer computes without a class token, with `fc_norm=False` and pooling by the mean."""
    standard = config["pretrained_cfg"]
    x = (images - torch.tensor(standard["mean"])[:, None, None]) / torch.tensor(standard["std"])[
        :, None, None
    ]
    patch, width = config["model_args"]["patch_size"], config["num_features"]
    x = F.conv2d(x, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2) + tensors["pos_embed"]
    heads = {"vit_tiny_patch16_224": 3, "vit_small_patch16_224": 6}[config["architecture"]]
    linear = lambda name, x: F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])  # noqa: E731
    norm = lambda name, x: F.layer_norm(x, (width,), tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-6)  # noqa: E731
    for k in range(12):
        name = f"blocks.{k}"
        B, L, _ = x.shape
        qkv = linear(f"{name}.attn.qkv", norm(f"{name}.norm1", x)).reshape(B, L, 3, heads, width // heads)
        q, key, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weight = (q @ key.transpose(-2, -1) / math.sqrt(width / heads)).softmax(-1)
        x = x + linear(f"{name}.attn.proj", (weight @ v).transpose(1, 2).reshape(B, L, width))
        x = x + linear(f"{name}.mlp.fc2", F.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", x))))
    return norm("norm", x).mean(1)


@pytest.mark.parametrize("kind", ["vit 2D", "vit in colour"])
def test_a_vit_by_timms_names_computes_the_same_and_is_read_again_as_it_was(made, tmp_path, kind):
    study, run = made(kind)
    export(run, tmp_path / "out", ["timm"], licence="CC-BY-4.0")
    config = json.loads((tmp_path / "out" / "timm" / "config.json").read_text())
    tensors = load_file(tmp_path / "out" / "timm" / "model.safetensors")
    encoder = load_encoder(run).encoder
    images = torch.rand(3, encoder.channels, *encoder.space, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = timm_forward(tensors, config, images)
        torch.testing.assert_close(found, encoder(images), atol=1e-5, rtol=0)
    again = build_method(study).encoder
    warm_start(again, tmp_path / "out" / "timm" / "model.safetensors", None)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert config["pretrained_cfg"]["license"] == "CC-BY-4.0"
    assert "timm.create_model(" in (tmp_path / "out" / "timm" / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("vit 3D", "timm has ViTs of images, and this one is of volumes"), ("resnet 2D", "this is a resnet")],
)
def test_what_timm_can_not_hold_is_refused_and_nothing_is_written(made, tmp_path, kind, words):
    _study, run = made(kind)
    with pytest.raises(RunError, match=words):
        export(run, tmp_path / "out", ["safetensors", "timm"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_files_of_an_encoder_are_as_they_were_and_are_read_again(made, tmp_path):
    _study, run = made("resnet 3D")
    said = export(run / "encoder", tmp_path / "out", ["safetensors"])
    for name in ("model.safetensors", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (run / "encoder" / name).read_bytes()
    assert load_encoder(tmp_path / "out").sha256 == load_encoder(run).sha256
    assert len(said) == 2


def test_what_a_user_may_get_wrong_is_one_line_each(made, tmp_path):
    _study, run = made("resnet 2D")
    with pytest.raises(
        ConfigError, match="keras is not a format; give safetensors, timm, torch, onnx, monai"
    ):
        export(run, tmp_path / "out", ["onnx", "keras"])
    with pytest.raises(ConfigError, match="nothing is not a format"):
        export(run, tmp_path / "out", [])
    with pytest.raises(RunError, match="there is no such folder"):
        export(tmp_path / "nowhere", tmp_path / "out", ["torch"])
    with pytest.raises(RunError, match="the output folder is not empty"):
        export(run, run, ["torch"])
    (run / "encoder" / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(DamagedError):
        export(run, tmp_path / "out", ["torch"])
    assert not (tmp_path / "out").exists()


def test_onnx_without_its_packages_says_what_to_install(made, tmp_path, monkeypatch):
    _study, run = made("resnet 2D")
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(RunError, match=r"ONNX needs onnxruntime, .* pip install 'hilum\[onnx\]'"):
        export(run, tmp_path / "out", ["safetensors", "onnx"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_file_that_gives_other_results_is_refused_and_nothing_is_left(made, tmp_path, monkeypatch):
    _study, run = made("resnet 2D")
    real = torch.export.load

    class Off:
        def __init__(self, path):
            self.program = real(path)

        def module(self):
            network = self.program.module()
            return lambda images: network(images) + 1e-3

    monkeypatch.setattr(torch.export, "load", Off)
    with pytest.raises(RunError, match=r"other results than the network .* nothing was written"):
        export(run, tmp_path / "out", ["torch"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_difference_is_never_small_where_values_are_missing_or_not_finite():
    good = np.ones((2, 3))
    assert largest_difference(good, good * (1 + 1e-6)) == pytest.approx(1e-6, rel=1e-3)
    assert largest_difference(good * 100, good * 101) == pytest.approx(1 / 101)
    assert largest_difference(good[:1], good) == math.inf
    assert largest_difference(good * np.nan, good) == math.inf


def with_head(run, output, head):
    """Return a model: the run's encoder with a head."""
    source = read_exportable(run)
    changes = {"kind": "model", "output": output, "output_words": "two scores", "names": ("no", "yes")}
    facts = {name: getattr(source, name) for name in Exportable.__dataclass_fields__}
    return Exportable(**{**facts, **changes, "module": head(source.module).eval()})


class Scores(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.width, 2)

    def forward(self, images):
        return self.head(self.encoder(images))


class Maps(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.head = encoder, nn.Conv3d(encoder.width, 2, 1)

    def forward(self, images):
        return F.interpolate(self.head(self.encoder.feature_maps(images)[-1]), images.shape[2:])


def test_a_model_with_a_head_is_written_as_an_encoder_is(made, tmp_path):
    _study, run = made("resnet 2D")
    model = with_head(run, "scores", Scores)
    write_program(model, tmp_path)
    write_onnx(model, tmp_path)
    files = {"description.json": ""}
    program = torch.export.load(tmp_path / torch_program.FILE, extra_files=files)
    assert json.loads(json.loads(files["description.json"])["output_names"]) == ["no", "yes"]
    assert program.module()(model.example(4)).shape == (4, 2)
    with pytest.raises(RunError, match="this is a model with a head"):
        FORMATS["timm"](model, tmp_path)


def test_a_bundle_of_maps_puts_patches_together(made, tmp_path):
    _study, run = made("vit 3D")
    model = with_head(run, "maps", Maps)
    monai_bundle.write_bundle(model, tmp_path)
    configs = tmp_path / "bundle" / "configs"
    inferer = json.loads((configs / "inference.json").read_text())["inferer"]
    assert inferer["_target_"] == "SlidingWindowInferer"
    assert inferer["roi_size"] == [8, 16, 24]
    pred = json.loads((configs / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]
    assert pred["spatial_shape"] == [8, 16, 24]
    assert pred["channel_def"] == {"0": "no", "1": "yes"}


def test_a_network_that_is_no_graph_is_refused_in_one_line(made, tmp_path):
    class Branches(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, images):
            return self.encoder(images) if images.sum() > 0 else images.flatten(1)

    _study, run = made("resnet 2D")
    model = with_head(run, "scores", Branches)
    for write in (write_program, write_onnx):
        with pytest.raises(RunError, match="this network"):
            write(model, tmp_path)


def test_agreement_is_asked_for_batches_of_several_sizes_and_for_black_and_white(made):
    _study, run = made("resnet 2D")
    source, seen = read_exportable(run), []

    def noting(images):
        seen.append((len(images), float(images.min()), float(images.max())))
        return source.module(images)

    assert check_agreement(source, noting, 1e-6, "it") == 0
    assert [count for count, *_ in seen] == [1, 2, 5, 1, 1]
    assert seen[3:] == [(1, 0.0, 0.0), (1, 1.0, 1.0)]


def test_every_format_that_the_help_names_is_one(commands):
    option = next(one for one in commands["hilum site export"].params if "--to" in one.opts)
    assert set(option.help.split(".")[0].replace(" or", ",").replace(",,", ",").split(", ")) == set(FORMATS)
