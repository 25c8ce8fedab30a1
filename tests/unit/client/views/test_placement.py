import numpy as np
import pytest
import torch

from hilum.client.views import operations, placement

CELLS = {2: 32, 3: 16}


@pytest.mark.parametrize("dims", [2, 3])
def test_the_middle_is_the_cell_that_counting_gives(dims):
    cells = CELLS[dims]
    rng = np.random.default_rng(0)
    images = rng.random((4, 2, *[cells * 2] * dims)).astype(np.float32) ** 3
    place, scale = rng.random(4).astype(np.float32), np.full(4, 0.25, np.float32)
    found = placement.centre_on_tissue(*map(torch.from_numpy, (images, scale, place)), threshold=0.25).numpy()
    for image, share, middle in zip(images, place, found, strict=True):
        split = image.reshape(2, *[part for _ in range(dims) for part in (cells, 2)])
        means = split.mean((0, *[2 + 2 * axis for axis in range(dims)]))
        bright = np.argwhere(means > 0.25)
        wanted = bright[int(share * len(bright))]
        where = (wanted[::-1] * 2 + 1) / cells - 1
        assert middle == pytest.approx(np.clip(where / 0.75, -1, 1), abs=1e-5)


def test_crops_lie_on_the_breast_and_not_on_the_black_beside_it():
    images = torch.zeros(200, 1, 64, 64)
    images[..., 20:44, :20] = 0.5
    place = torch.rand(200, generator=torch.Generator().manual_seed(1))
    scale, angle = torch.full((200,), 0.3), torch.zeros(200)
    centre = placement.centre_on_tissue(images, scale, place, 0.06)
    crops = operations.crop_and_rotate(images, scale, centre, angle, 16)
    anywhere = operations.crop_and_rotate(
        images, scale, torch.rand(200, 2, generator=torch.Generator().manual_seed(2)) * 2 - 1, angle, 16
    )
    assert (crops.mean((1, 2, 3)) > 0.08).all()  # a third of the crop at the least
    assert (anywhere.mean((1, 2, 3)) > 0.08).float().mean() < 0.7


def test_an_image_without_tissue_is_cropped_anywhere():
    place = torch.tensor([0.0, 0.5, 0.999])
    centre = placement.centre_on_tissue(torch.zeros(3, 1, 32, 32), torch.full((3,), 0.5), place, 0.06)
    assert centre.tolist()[0] == [-1, -1]
    assert centre.tolist()[2] == [1, 1]


def test_a_crop_of_everything_needs_no_place():
    centre = placement.centre_on_tissue(torch.rand(2, 1, 32, 32), torch.ones(2), torch.rand(2), 0.06)
    whole = operations.crop_and_rotate(torch.ones(2, 1, 32, 32), torch.ones(2), centre, torch.zeros(2), 32)
    assert whole.min() == pytest.approx(1)
