import numpy as np
import torch

from hilum.client.views import sound


def fans(count=2):
    return torch.rand(count, 1, 9, 5, generator=torch.Generator().manual_seed(4))


def test_gain_by_depth_is_the_line_and_the_parabola():
    images, coefficients = fans() * 0.5, np.array([[0.3, 0.0], [0.1, -0.2]])
    made = sound.apply_depth_gain(images, torch.from_numpy(coefficients).float()).numpy()
    for image, (line, parabola), found in zip(images.numpy(), coefficients, made, strict=True):
        for row in range(9):
            depth = -1 + row / 4
            gain = np.exp(line * depth + parabola * (3 * depth**2 - 1) / 2)
            assert np.allclose(found[0, row], image[0, row] * gain, atol=1e-6)


def test_gain_changes_with_depth_alone_and_leaves_black_black():
    even = torch.full((1, 1, 8, 6), 0.5)
    even[..., 0] = 0
    made = sound.apply_depth_gain(even, torch.tensor([[0.4, 0.0]]))
    assert torch.equal(made[..., 1], made[..., 5])
    assert made[..., 0].max() == 0
    assert torch.all(made[0, 0, 1:, 1] > made[0, 0, :-1, 1])


def test_speckle_is_as_strong_as_the_image_is_bright():
    images = torch.tensor([0.0, 0.1, 0.4]).view(1, 1, 1, 3).expand(1, 1, 20_000, 3)
    grain = torch.randn(1, 1, 20_000, 3, generator=torch.Generator().manual_seed(5))
    made = sound.add_speckle(images, grain, torch.tensor([0.2]))[0, 0]
    assert made[:, 0].max() == 0
    assert np.allclose(made.std(0).numpy(), [0, 0.02, 0.08], rtol=0.03)
    assert np.allclose(made.mean(0).numpy(), [0, 0.1, 0.4], rtol=0.01)


def test_no_strength_is_no_speckle():
    images = fans()
    assert torch.equal(sound.add_speckle(images, torch.ones(2, 1, 9, 5), torch.zeros(2)), images)
