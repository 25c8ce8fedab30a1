"""Views and training steps, beside a plain loop of the same recipe.

    python benchmarks/training.py

Ratios are medians over interleaved repetitions in this one run; absolutes are for orientation.
"""

import torch
from timing import median_s

from hilum.client.pretraining.device import make_fabric
from hilum.client.views import Viewer
from hilum.common.config import parse_study
from hilum.common.methods import ViewGroup, ViewPlan, Views, build_method

BATCH = 32
TABLE = {
    "study": {"name": "bench"},
    "data": {"modality": "radiograph", "image_size": 64},
    "encoder": {"name": "vit", "size": "tiny", "patch_size": 8},
    "method": {"name": "mae"},
}


def views() -> None:
    """Compare a batch's strong views at once, against the same operations one image at a time."""
    study = parse_study(TABLE)
    viewer = Viewer(study.data, ViewPlan({"image": ViewGroup(2, "strong")}))
    images = torch.rand(BATCH, 1, 80, 80)
    rng = torch.Generator().manual_seed(0)
    batched, single = median_s(
        lambda: viewer(images, rng), lambda: [viewer(image[None], rng) for image in images], warm_up=True
    )
    print(
        f"strong views of 64 px: {2 * BATCH / batched:.0f}/s batched, {2 * BATCH / single:.0f}/s one by one"
    )
    print(f"  ratio {single / batched:.1f}x")


def masked_encoding() -> None:
    """Compare a step of MAE, which encodes a quarter of the patches, against the same encoder on all of them."""
    study = parse_study(TABLE)
    make_fabric("cpu", "fp32", 1)
    method = build_method(study)
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 1, 1, 64, 64)
    views = Views({"image": images}, {}, None)
    numbers = method.draw(BATCH, rng)

    def masked() -> None:
        method(views, numbers).per_image.mean().backward()

    def whole() -> None:
        method.encoder(images[:, 0]).mean().backward()

    ours, full = median_s(masked, whole, warm_up=True)
    print(f"MAE step, ViT-Tiny/8, 64 px, one thread: {BATCH / ours:.0f} images/s")
    print(
        f"  a step of the encoder alone on all patches: {BATCH / full:.0f} images/s, ratio {full / ours:.1f}x"
    )


if __name__ == "__main__":
    views()
    masked_encoding()
