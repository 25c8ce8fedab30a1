"""What stands for a whole volume: the mean over the pieces that show something."""

import numpy as np
import pytest
import torch

from hilum.client.data.volumes import joined
from hilum.client.evaluation.protocol import encoder_from
from hilum.client.pretraining.device import make_fabric
from hilum.client.tasks.features import encoder_features, mean_by_row, pixel_features
from hilum.common.preparation.encoder_input import encoder_input
from volume_phantoms import trunk, volumes_of

KINDS = {
    "patches": {"modality": "ct", "dims": 3, "image_size": 16, "spacing_mm": [3.0, 2.0, 2.0]},
    "boxes": {"modality": "mr", "dims": 3, "image_size": [8, 16, 24], "spacing_mm": 3.0},
    "slices": {"modality": "ct", "cut": "slices", "image_size": 16, "window_hu": [-160, 240]},
}
SPACING_MM = (4.0, 1.5, 2.0)


@pytest.fixture(params=KINDS)
def opened(request, make_study, tmp_path):
    study = make_study(data=KINDS[request.param])
    arrays, made = [], []
    for number in range(3):
        arrays.append(trunk((12 + number, 40, 30), study.data.modality, number))
        (tmp_path / str(number)).mkdir()
        made.append(volumes_of(arrays[-1], SPACING_MM, study.data, tmp_path / str(number)))
    return study, arrays, joined(made)


def test_features_of_a_volume_are_those_that_its_card_tells_how_to_make(opened):
    study, arrays, volumes = opened
    encoder = encoder_from(study, None)
    rows = np.array([2, 0, 1])
    ours = encoder_features(encoder, volumes, rows, study, make_fabric("cpu", "fp32", 1))
    for place, row in enumerate(rows.tolist()):
        pieces = encoder_input(arrays[row], study.data, SPACING_MM)
        assert len(pieces) > 1
        assert pieces.shape[1:] == (1, *study.data.view_size)
        with torch.no_grad():
            np.testing.assert_allclose(encoder(pieces).mean(0).numpy(), ours[place], atol=1e-5)


def test_raw_values_of_a_volume_are_averages_of_all_of_it(opened):
    study, _arrays, volumes = opened
    raw = pixel_features(volumes, np.array([1]), study)
    whole = volumes.files[1].values() / 65_535
    assert raw.shape == (1, 16**3)
    assert raw.mean() == pytest.approx(whole.mean(), abs=0.02)
    expected = torch.nn.functional.adaptive_avg_pool3d(torch.from_numpy(whole)[None], 16).flatten()
    np.testing.assert_allclose(raw[0], expected.numpy(), atol=1e-5)


def test_the_mean_of_a_row_is_over_its_pieces_whatever_batch_they_came_in():
    parts = [
        (np.array([0, 0, 1]), torch.tensor([[1.0], [2.0], [5.0]])),
        (np.array([0, 2]), torch.tensor([[6.0], [7.0]])),
    ]
    assert mean_by_row(3, parts).tolist() == [[3.0], [5.0], [7.0]]


def test_patches_need_a_spacing_and_a_volume(make_study):
    data = make_study(data=KINDS["patches"]).data
    with pytest.raises(ValueError, match="3 axes and as many distances; found 3 axes and 0"):
        encoder_input(np.zeros((20, 20, 20)), data)
    slices = make_study(data=KINDS["slices"]).data
    with pytest.raises(ValueError, match="3 axes and as many distances, or none; found 2 axes"):
        encoder_input(np.zeros((20, 20)), slices)
