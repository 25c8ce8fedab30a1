"""A file that can't serve is refused in one line that says what to do."""

import re

import pytest
import torch
from safetensors.torch import save_file

from foreign_weights import timm_vit, torchvision_resnet, written
from hilum.common.encoders.warm_start import inspect_file, warm_start
from hilum.common.errors import ConfigError, DamagedError, HilumError


def problem(encoder, path, sha256=None):
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(HilumError) as caught:
        warm_start(encoder, path, sha256)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert "\n" not in str(caught.value)
    return caught.value


def test_another_width_and_depth_are_told_with_the_first_three_differences(encoder_of, tmp_path):
    path = tmp_path / "small.safetensors"
    written(timm_vit(width=384, depth=11, grid=4), path)
    error = str(problem(encoder_of(patch_size=8), path))
    assert (
        "small.safetensors is of another architecture: width 384 in the file, 192 in the study; depth 11 in the file, 12 in the "
        "study; patch size 16 in the file, 8 in the study (and "
    ) in error
    assert 'no size of encoder.name = "vit" is like it' in error
    written(timm_vit(width=384, grid=4), path)
    error = str(problem(encoder_of(patch_size=8), path))
    assert 'write encoder.name = "vit", encoder.size = "small", encoder.patch_size = 16' in error


def test_another_family_is_told(encoder_of, tmp_path):
    written(torchvision_resnet(), tmp_path / "resnet.safetensors")
    error = str(problem(encoder_of(patch_size=8), tmp_path / "resnet.safetensors"))
    assert 'encoder.name = "resnet" in the file, "vit" in the study' in error
    assert 'write encoder.name = "resnet", encoder.size = "small"' in error


def test_tensors_that_change_what_is_computed_and_have_no_place_are_told(encoder_of, tmp_path):
    state = timm_vit(grid=4, patch=8)
    state |= {f"blocks.{n}.attn.q_norm.weight": torch.ones(64) for n in range(12)}
    written(state, tmp_path / "qk.safetensors")
    error = str(problem(encoder_of(patch_size=8), tmp_path / "qk.safetensors"))
    assert "blocks.0.attn.q_norm.weight has no place in the study's network" in error
    assert "(and 9 more); take another file" in error


def test_missing_tensors_are_told(encoder_of, tmp_path):
    state = timm_vit(grid=4, patch=8)
    del state["blocks.5.mlp.fc1.bias"]
    written(state, tmp_path / "part.safetensors")
    error = str(problem(encoder_of(patch_size=8), tmp_path / "part.safetensors"))
    assert "blocks.5.mlp.0.bias has nothing in the file" in error


def test_nothing_that_is_known(encoder_of, tmp_path):
    written({"bert.embeddings.weight": torch.zeros(2)}, tmp_path / "text.safetensors")
    error = problem(encoder_of(patch_size=8), tmp_path / "text.safetensors")
    assert "nothing in text.safetensors matches: none of its 1 tensors (bert.embeddings.weight, ...)" in str(
        error
    )
    assert inspect_file(tmp_path / "text.safetensors").kind is None


def test_no_file_and_another_hash(encoder_of, tmp_path):
    encoder = encoder_of(patch_size=8)
    assert "there is no file" in str(problem(encoder, tmp_path / "none.safetensors"))
    sha256 = written(timm_vit(grid=4, patch=8), tmp_path / "vit.safetensors")
    error = problem(encoder, tmp_path / "vit.safetensors", "0" * 64)
    assert isinstance(error, ConfigError)
    assert f"vit.safetensors has the SHA-256 {sha256}, encoder.init.sha256 is {'0' * 64}" in str(error)
    assert "can't be read" in str(problem(encoder, tmp_path))


@pytest.mark.parametrize("keep", [0, 7, 1000, 0.5, 0.999])
def test_a_part_of_a_file_is_damaged(encoder_of, tmp_path, keep):
    path = tmp_path / "vit.safetensors"
    written(timm_vit(grid=4, patch=8), path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    error = problem(encoder_of(patch_size=8), path)
    assert isinstance(error, DamagedError)
    assert "vit.safetensors is not a whole safetensors file; fetch it again" in str(error)


@pytest.mark.parametrize(
    ("name", "legacy"), [("w.pth", False), ("w.safetensors", False), ("w.safetensors", True)]
)
def test_a_pickle_is_never_read_and_told_how_to_convert(encoder_of, tmp_path, name, legacy):
    path, made = tmp_path / name, tmp_path / "made.safetensors"
    state = timm_vit(grid=4, patch=8)
    torch.save({"model": state, "epoch": 3}, path, _use_new_zipfile_serialization=not legacy)
    error = str(problem(encoder_of(patch_size=8), path))
    assert f"{name} is a pickle, which can run code" in error
    [code] = re.findall(r'python -c "(.*)" IN\.pth OUT\.safetensors', error)
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", code, path, made], check=True)
    assert warm_start(encoder_of(patch_size=8), made, None).counts["matched"] > 100


def test_a_number_that_is_none_is_refused(encoder_of, tmp_path):
    state = timm_vit(grid=4, patch=8)
    state["blocks.1.norm1.weight"][3] = float("nan")
    written(state, tmp_path / "nan.safetensors")
    assert "blocks.1.norm1.weight holds a NaN" in str(
        problem(encoder_of(patch_size=8), tmp_path / "nan.safetensors")
    )


def test_a_head_whose_length_looks_like_a_pickle_is_none(encoder_of, tmp_path):
    """The first byte of a safetensors file is that of the length of its head."""
    path, state = tmp_path / "vit.safetensors", timm_vit(grid=4, patch=8, class_token=False)
    for room in range(300):
        save_file(state, path, {"note": "x" * 8 * room})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    warm_start(encoder_of(patch_size=8), path, None)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pos_embed", (1, 17, 64)),
        ("pos_embed", (192,)),
        ("patch_embed.proj.weight", (192,)),
        ("patch_embed.proj.weight", (192, 3, 8, 4)),
        ("blocks.2.ls1.gamma", (7,)),
        ("cls_token", (192,)),
    ],
)
@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_shapes_that_no_network_has_are_refused(encoder_of, tmp_path, name, shape, positions):
    state = {**timm_vit(grid=4, patch=8), name: torch.ones(shape)}
    written(state, tmp_path / "odd.safetensors")
    encoder = encoder_of(patch_size=8, positions=positions)
    problem(encoder, tmp_path / "odd.safetensors")
    if name == "patch_embed.proj.weight" and len(shape) == 1:
        with pytest.raises(ConfigError, match="its tensors do not fit each other"):
            inspect_file(tmp_path / "odd.safetensors")
