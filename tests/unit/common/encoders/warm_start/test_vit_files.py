"""ViTs by the names of timm, DINO, DINOv2 and MAE: what their networks compute, as far as ours can."""

import pytest
import torch
import torch.nn.functional as F

from foreign_weights import (
    WIDTH,
    dino_teacher,
    dinov2_vit,
    mae_positions,
    mae_vit,
    plain_vit,
    timm_vit,
    without,
)
from hilum.common.encoders.transformer import sincos_positions

GREY = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(7))
RGB = GREY.expand(-1, 3, -1, -1)


def features(encoder, images=GREY):
    with torch.no_grad():
        return encoder(images)


def of(report, name):
    [found] = [one for one in report.keys if one.source == name]
    return found.outcome, found.target, found.how


@pytest.mark.parametrize("order", ["rows first", "columns first, as MAE has them"])
def test_a_timm_vit_with_fixed_positions_and_mean_pooling_computes_what_it_computed(encoder_of, start, order):
    own = order == "rows first"
    positions = sincos_positions((4, 4), WIDTH)[0] if own else mae_positions(4, WIDTH)
    state = timm_vit(grid=4, positions=positions, class_token=False)
    encoder = encoder_of(patch_size=16)
    report = start(encoder, state)
    found = features(encoder)
    found = found if own else found.roll(WIDTH // 2, 1)  # its features are in the study's order
    torch.testing.assert_close(found, plain_vit(state, RGB), atol=1e-5, rtol=1e-5)
    assert report.kind == "timm"
    assert report.first_values == ()
    assert of(report, "pos_embed")[0] == "adapted"
    assert "3 channels summed" in of(report, "patch_embed.proj.weight")[2]
    assert of(report, "head.weight")[:2] == ("left", None)
    assert of(report, "blocks.3.attn.qkv.bias")[0] == "matched"


def test_a_table_of_positions_takes_learned_ones(encoder_of, start):
    state = timm_vit(grid=4, class_token=False)
    encoder = encoder_of(patch_size=16, positions="learned")
    assert of(start(encoder, state), "pos_embed")[:2] == ("matched", "position_table.weight")
    torch.testing.assert_close(features(encoder), plain_vit(state, RGB), atol=1e-5, rtol=1e-5)


def test_learned_positions_are_interpolated_to_another_grid(encoder_of, start):
    """The network whose table was interpolated by hand computes the same."""
    state = timm_vit(grid=14)
    encoder = encoder_of(patch_size=16, positions="learned")
    report = start(encoder, state)
    plane = state["pos_embed"][:, 1:].transpose(1, 2).reshape(1, WIDTH, 14, 14)
    smaller = F.interpolate(plane, (4, 4), mode="bicubic").flatten(2).transpose(1, 2)
    by_hand = {**without(state, "cls_token"), "pos_embed": smaller}
    torch.testing.assert_close(features(encoder), plain_vit(by_hand, RGB), atol=1e-5, rtol=1e-5)
    assert "interpolated from 14 x 14 to 4 x 4; those of patches alone" in of(report, "pos_embed")[2]
    assert of(report, "cls_token") == (
        "left", None, "the study's ViT has no class token: its attention is over patches alone",
    )  # fmt: skip


def test_learned_positions_are_left_and_said_to_be_where_there_is_no_table(encoder_of, start):
    report = start(encoder_of(patch_size=16), timm_vit(grid=4))
    outcome, _, how = of(report, "pos_embed")
    assert outcome == "left"
    assert '"learned" takes these' in how
    assert any("does not compute what it computed" in note for note in report.notes)
    assert any("does not compute what it computed" in line for line in report.lines())


def test_a_mae_loads_without_class_token_and_decoder_and_with_its_positions(encoder_of, start):
    state = mae_vit(grid=4)
    encoder = encoder_of(patch_size=16)
    report = start(encoder, state)
    expected = plain_vit(without(state, "cls_token"), RGB)
    torch.testing.assert_close(features(encoder).roll(WIDTH // 2, 1), expected, atol=1e-5, rtol=1e-5)
    assert report.kind == "mae"
    left = {one.source for one in report.keys if one.outcome == "left"}
    assert left == {"cls_token", "mask_token", *(name for name in state if name.startswith("decoder_"))}
    assert of(report, "pos_embed")[2] == "fixed, and computed by the study's network with the rows first"


def test_fixed_positions_of_a_larger_grid_are_known_again(encoder_of, start):
    """They are computed for the study's own grid: the first places of the larger one, as a crop of its images has them."""
    state = mae_vit(grid=14)
    encoder = encoder_of(patch_size=16)
    start(encoder, state)
    crop = state["pos_embed"][:, 1:].view(1, 14, 14, WIDTH)[:, :4, :4].flatten(1, 2)
    expected = plain_vit({**without(state, "cls_token"), "pos_embed": crop}, RGB)
    torch.testing.assert_close(features(encoder).roll(WIDTH // 2, 1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunks", [0, 4])
def test_a_dinov2_has_its_scales_in_the_layers_before_them(encoder_of, start, chunks):
    plain = dinov2_vit(grid=4)
    encoder = encoder_of(patch_size=14, positions="learned", image_size=56)
    report = start(encoder, dinov2_vit(grid=4, chunks=chunks))
    images = RGB[:, :, :56, :56]
    expected = plain_vit(without(plain, "cls_token", "register_tokens"), images)
    torch.testing.assert_close(features(encoder, images[:, :1]), expected, atol=1e-5, rtol=1e-5)
    assert report.kind == "dino"
    at = "blocks.2.9." if chunks else "blocks.9."
    assert of(report, f"{at}ls1.gamma")[:2] == ("adapted", "blocks.9.attention.out.weight")
    assert of(report, f"{at}attn.proj.weight")[2] == "times ls1.gamma"
    assert of(report, "register_tokens")[0] == of(report, "mask_token")[0] == "left"


def test_of_a_dino_checkpoint_the_teacher_is_taken(encoder_of, start):
    state = dino_teacher(grid=4, patch=8)
    encoder = encoder_of(patch_size=8, positions="learned", image_size=32)
    report = start(encoder, state)
    teacher = {name.removeprefix("teacher.backbone."): tensor for name, tensor in state.items()}
    expected = plain_vit(without(teacher, "cls_token"), RGB[:, :, :32, :32])
    torch.testing.assert_close(features(encoder, GREY[:, :, :32, :32]), expected, atol=1e-5, rtol=1e-5)
    assert of(report, "student.module.backbone.norm.weight") == ("left", None, "outside of the encoder")
    assert of(report, "teacher.head.last_layer.weight_g")[0] == "left"
    assert of(report, "teacher.backbone.norm.weight")[:2] == ("matched", "norm.weight")


def test_a_volume_that_is_one_plane_at_every_depth_has_the_features_of_the_plane(encoder_of, start):
    """Attention over tokens that are each there four times is attention over them once."""
    state = timm_vit(grid=4, class_token=False, channels=1)
    encoder = encoder_of(dims=3, patch_size=16, positions="learned")
    report = start(encoder, state)
    volume = GREY[:, :, None].expand(-1, -1, 64, -1, -1)
    torch.testing.assert_close(features(encoder, volume), plain_vit(state, GREY), atol=1e-5, rtol=1e-5)
    assert "repeated at every depth" in of(report, "pos_embed")[2]
    assert "a plane repeated in depth" in of(report, "patch_embed.proj.weight")[2]


def test_a_network_whose_norm_comes_after_the_mean_is_told_apart(encoder_of, start):
    report = start(encoder_of(patch_size=16), timm_vit(grid=4, norm="fc_norm"))
    assert of(report, "fc_norm.weight") == (
        "adapted", "norm.weight", "was after the mean over patches, is before it",
    )  # fmt: skip


def test_half_precision_is_widened(encoder_of, start):
    state = {
        name: tensor.half()
        for name, tensor in timm_vit(grid=4, positions=mae_positions(4, WIDTH), class_token=False).items()
    }
    encoder = encoder_of(patch_size=16)
    report = start(encoder, state)
    assert {tensor.dtype for tensor in encoder.state_dict().values()} == {torch.float32}
    assert of(report, "pos_embed")[0] == "adapted"  # known again though rounded


def test_a_file_without_biases_of_queries_keeps_zeros(encoder_of, start):
    state = {name: tensor for name, tensor in timm_vit(grid=4).items() if not name.endswith("qkv.bias")}
    encoder = encoder_of(patch_size=16)
    report = start(encoder, state)
    assert len(report.first_values) == 12
    assert encoder.state_dict()["blocks.0.attention.qkv.bias"].abs().max() == 0
