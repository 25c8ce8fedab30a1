"""Resampling against torch's antialiased interpolation, and what it promises of memory and of millimetres."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hilum.common.preparation.resampling import Taps, resampled, shape_after


def torch_resampled(values, sizes):
    """The same by an independent implementation, two axes at a time."""
    x = torch.from_numpy(values.astype(np.float32))
    x = F.interpolate(x[:, None], sizes[1:], mode="bilinear", antialias=True)[:, 0]
    x = x.permute(1, 0, 2)[:, None]
    x = F.interpolate(x, (sizes[0], x.shape[3]), mode="bilinear", antialias=True)[:, 0]
    return x.permute(1, 0, 2).numpy()


@pytest.mark.parametrize(
    ("spacing_mm", "target_mm", "sizes"),
    [
        ((1.0, 1.0, 1.0), (2.0, 3.0, 4.0), (6, 8, 4)),
        ((2.0, 3.0, 1.0), (1.0, 1.0, 1.0), (24, 72, 16)),
        ((5.0, 0.5, 0.5), (1.0, 1.0, 0.25), (60, 12, 32)),
        ((0.7, 0.7, 0.7), (0.7, 0.7, 0.7), (12, 24, 16)),
    ],
)
def test_volumes_are_resampled_as_torch_does_it_where_extents_come_out_even(spacing_mm, target_mm, sizes):
    values = np.random.default_rng(0).integers(-1000, 1000, (12, 24, 16)).astype(np.int16)
    made = np.stack(list(resampled(values, spacing_mm, target_mm)))
    assert made.shape == shape_after(values.shape, spacing_mm, target_mm) == sizes
    np.testing.assert_allclose(made, torch_resampled(values, sizes), atol=2e-2)


@pytest.mark.parametrize("target_mm", [0.31, 0.7, 1.1, 2.9])
def test_a_place_in_millimetres_stays_where_it_is(target_mm):
    """A ramp of millimetres from the middle of the volume is one afterwards, at exactly the new spacing."""
    count, spacing_mm = 50, 0.7
    taps = Taps.between(count, spacing_mm, target_mm)
    before_mm = ((np.arange(count) - (count - 1) / 2) * spacing_mm).astype(np.float32)
    after_mm = taps.along(before_mm[None], 1)[0]
    expected_mm = (np.arange(len(after_mm)) - (len(after_mm) - 1) / 2) * target_mm
    inside = np.abs(expected_mm) < before_mm[-1] - max(spacing_mm, target_mm)
    assert inside.any()
    # A triangle that is sampled at other than whole steps leans by a few hundredths of a voxel; linear interpolation does not.
    leans_mm = 1e-4 if target_mm <= spacing_mm else 0.06 * spacing_mm
    np.testing.assert_allclose(after_mm[inside], expected_mm[inside], atol=leans_mm)


def test_what_has_the_spacing_already_keeps_its_values():
    values = np.random.default_rng(1).integers(-1000, 1000, (3, 4, 5)).astype(np.int16)
    assert np.array_equal(np.stack(list(resampled(values, (5.0, 0.45, 0.7), (5.0, 0.45, 0.7)))), values)


def test_one_slice_after_the_other_is_read_and_each_once():
    class Watched:
        shape = (40, 6, 6)
        read: list = []  # noqa: RUF012 - one object

        def __getitem__(self, number):
            self.read.append(number)
            return np.full((6, 6), number, np.int16)

    for target_mm in (0.5, 3.0):
        watched = Watched()
        watched.read = []
        made = resampled(watched, (1.0, 1.0, 1.0), (target_mm, 1.0, 1.0))
        for done, _ in enumerate(made, 1):
            assert max(watched.read) <= done * target_mm + target_mm + 1, "no more than it takes"
        assert watched.read == list(range(40))
