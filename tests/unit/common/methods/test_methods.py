import numpy as np
import pytest
import torch

from batches import views_of
from hilum.common.config import parse_study
from hilum.common.config.methods import MethodConfig
from hilum.common.config.named import names_of
from hilum.common.methods import METHODS, build_method
from hilum.common.methods.losses.masked_pixels import masked_pixel_loss, normalise_patches
from hilum.common.methods.losses.nt_xent import nt_xent_loss
from hilum.common.methods.parts import (
    encoder_part,
    federated_manifest,
    get_federated,
    get_kept,
    receive,
)
from studies import study_table

SIMCLR = {"method": {"name": "simclr"}}
EACH = [{"method": {"name": name}} for name in METHODS]


def reference_nt_xent(first, second, temperature, patients=None):
    """Equation 1 of arXiv 2002.05709, one pair at a time; images of one patient are no negatives of each other."""
    z = [v / np.linalg.norm(v) for v in np.concatenate([first, second])]
    n = len(first)
    whose = list(range(n)) if patients is None else patients

    def loss(i, j):
        others = [k for k in range(2 * n) if k == j or whose[k % n] != whose[i % n]]
        denominator = sum(np.exp(z[i] @ z[k] / temperature) for k in others)
        return -np.log(np.exp(z[i] @ z[j] / temperature) / denominator)

    return [(loss(i, i + n) + loss(i + n, i)) / 2 for i in range(n)]


def test_nt_xent_is_the_papers_equation():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 7))
    found = nt_xent_loss(torch.tensor(first), torch.tensor(second), 0.3)
    assert np.allclose(found.numpy(), reference_nt_xent(first, second, 0.3), atol=1e-5)


def test_two_images_of_one_patient_do_not_repel_each_other():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 5, 7))
    patients = [3, 0, 3, 7, 0]
    found = nt_xent_loss(torch.tensor(first), torch.tensor(second), 0.3, torch.tensor(patients))
    assert np.allclose(found.numpy(), reference_nt_xent(first, second, 0.3, patients), atol=1e-5)
    alone = nt_xent_loss(torch.tensor(first), torch.tensor(second), 0.3, torch.full((5,), 2))
    assert torch.equal(alone, torch.zeros(5)), "with nobody to repel, a pair has nothing to learn"


def test_simclr_knows_whose_images_it_sees():
    method = build_method(parse_study(study_table(**SIMCLR)))
    views = views_of(torch.rand(4, 2, 1, 16, 16))
    apart = method(views._replace(patients=torch.arange(4)), {}).per_image
    assert torch.allclose(apart, method(views, {}).per_image)
    together = method(views._replace(patients=torch.tensor([0, 0, 1, 2])), {}).per_image
    assert (together[:2] < apart[:2]).all()
    assert torch.allclose(together[2:], apart[2:])


def test_autocast_does_not_coarsen_nt_xent():
    first, second = torch.randn(2, 6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = nt_xent_loss(first, second, 0.1)
    assert torch.equal(inside, nt_xent_loss(first, second, 0.1))


def test_nt_xent_does_not_care_which_view_is_first_nor_about_length():
    first, second = torch.randn(2, 6, 4)
    loss = nt_xent_loss(first, second, 0.2)
    assert torch.allclose(loss, nt_xent_loss(second, first, 0.2))
    assert torch.allclose(loss, nt_xent_loss(5 * first, 0.1 * second, 0.2), atol=1e-5)


def test_nt_xent_is_lowest_when_views_agree():
    first = torch.eye(4)
    assert nt_xent_loss(first, first, 0.1).max() < nt_xent_loss(first, first.roll(1, 0), 0.1).min()


def test_the_masked_loss_counts_removed_patches_only():
    target, predicted = (
        torch.zeros(1, 4, 3),
        torch.tensor([5.0, 1.0, 2.0, 7.0])[None, :, None].expand(1, 4, 3),
    )
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert masked_pixel_loss(predicted, target, mask).tolist() == [(1 + 4) / 2]


def test_normalised_patches_have_mean_zero_and_variance_one():
    patches = normalise_patches(torch.rand(2, 3, 16) * 5 + 2)
    assert torch.allclose(patches.mean(2), torch.zeros(2, 3), atol=1e-5)
    assert torch.allclose(patches.var(2), torch.ones(2, 3), atol=1e-3)
    assert torch.isfinite(normalise_patches(torch.ones(1, 1, 4))).all()


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 16), (0.9, 6), (0.999, 1), (0.001, 63)])
def test_mae_shows_the_encoder_the_kept_patches_only(make_study, ratio, kept):
    method = build_method(
        make_study(data={"image_size": 64}, method={"name": "mae", "mask_ratio": ratio, "decoder_width": 32})
    )
    assert method.kept == kept
    images, numbers = torch.rand(2, 1, 64, 64), method.draw(2, torch.Generator().manual_seed(1))
    predicted, patches, mask = method.reconstruct(images, numbers["order"])
    assert mask.sum(1).tolist() == [64 - kept] * 2
    changed = patches.clone()
    changed[mask.bool()] = 0.123
    from hilum.common.encoders.vit import unpatchify

    again, _, _ = method.reconstruct(unpatchify(changed, 8, (64, 64)), numbers["order"])
    assert torch.equal(predicted, again), "what is masked must not reach the prediction"


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("changes", EACH, ids=METHODS)
def test_a_method_gives_one_finite_loss_an_image_and_learns(make_study, changes, dims):
    study = make_study(**changes, data={"image_size": 16, "dims": dims, "modality": "ct"})
    method = build_method(study)
    rng = torch.Generator().manual_seed(0)
    count = study.method.views
    base = torch.rand(8, 1, 1, *[16] * dims, generator=rng)
    views = (base + 0.02 * torch.rand(8, count, 1, *[16] * dims, generator=rng)).clamp(0, 1)
    numbers = method.draw(8, rng)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = method(views_of(views), numbers).per_image
        assert loss.shape == (8,)
        assert torch.isfinite(loss).all()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(float(loss.detach().mean()))
    assert losses[-1] < 0.9 * losses[0]


def test_mae_losses_of_a_batch_are_independent_and_simclrs_are_not(make_study):
    for changes, independent in (({}, True), (SIMCLR, False)):
        study = make_study(**changes)
        method = build_method(study)
        assert method.spec.dp is independent
        rng = torch.Generator().manual_seed(0)
        views, numbers = torch.rand(4, study.method.views, 1, 16, 16, generator=rng), method.draw(4, rng)
        first = {name: drawn[:2] for name, drawn in numbers.items()}
        whole = method(views_of(views), numbers).per_image[:2]
        half = method(views_of(views[:2]), first).per_image
        assert torch.allclose(whole, half, atol=1e-5) is independent


@pytest.mark.parametrize("part", ["mae", "vit", "resnet"])
def test_opacus_serves_the_mae_and_the_encoders_as_they_are(make_study, part):
    opacus = pytest.importorskip("opacus")
    encoder = {"name": "resnet", "size": "tiny"} if part == "resnet" else {"name": "vit", "patch_size": 8}
    study = make_study(encoder=encoder, **({} if part == "mae" else SIMCLR))
    method = build_method(study).double()
    module = method if part == "mae" else method.encoder
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 1, 16, 16, generator=rng, dtype=torch.float64)
    numbers = {name: drawn.double() for name, drawn in method.draw(3, rng).items()}
    seen = images[:, 0].requires_grad_()

    def loss_of(model, chosen):
        if part == "mae":
            return model(
                views_of(images[chosen]), {name: drawn[chosen] for name, drawn in numbers.items()}
            ).per_image
        return model(seen[chosen]).square().sum(1)

    one_by_one = []
    for index in range(3):
        module.zero_grad()
        loss_of(module, slice(index, index + 1)).sum().backward()
        one_by_one.append({name: p.grad.clone() for name, p in module.named_parameters()})
    module.zero_grad()
    wrapped = opacus.GradSampleModule(module, loss_reduction="sum")
    import warnings

    with warnings.catch_warnings():
        # torch's note that no input asks for a gradient, which is so for images
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        loss_of(wrapped, slice(None)).sum().backward()
    worst = max(
        float((p.grad_sample[index] - one_by_one[index][name]).abs().max())
        for name, p in module.named_parameters()
        for index in range(3)
    )
    assert worst < 1e-6


@pytest.mark.parametrize("changes", EACH, ids=METHODS)
def test_what_travels_and_what_stays_make_the_whole_method(make_study, changes):
    study = make_study(**changes)
    one, other = (
        build_method(study),
        build_method(
            parse_study({**study.model_dump(exclude_none=True), "study": {"name": "b", "seed": 99}})
        ),
    )
    receive(other, get_federated(one), get_kept(one))
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )
    manifest = federated_manifest(one)
    assert all(one.parts.kind_of(name) == "federated" for name, _ in manifest.entries)
    encoder = encoder_part(manifest, get_federated(one))
    assert set(encoder) == set(one.encoder.state_dict())


def test_simclr_keeps_its_projection_head_at_the_site(make_study):
    method = build_method(make_study(**SIMCLR))
    assert not any("projector" in name for name, _ in federated_manifest(method).entries)
    assert all(name.startswith("projector.") for name in get_kept(method))


def test_a_buffer_can_not_be_federated(make_study):
    method = build_method(make_study())
    method.encoder.register_buffer("running_mean", torch.zeros(1))
    with pytest.raises(ValueError, match="can't be averaged"):
        get_federated(method)


def test_a_part_that_nobody_declared_is_refused(make_study):
    method = build_method(make_study())
    method.extra = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="no declared part"):
        get_federated(method)


def test_every_method_says_what_it_shares_and_whether_dp_can_serve_it(make_study):
    assert set(METHODS) == set(names_of(MethodConfig))
    for spec in METHODS.values():
        assert "encoder.*" in spec.parts.federated
        assert spec.dp_reason
        assert spec.paper.startswith("arXiv ")


def test_previews_are_pictures(make_study):
    for changes in EACH:
        study = make_study(**changes)
        method = build_method(study)
        rng = torch.Generator().manual_seed(0)
        images = torch.rand(2, study.method.views, 1, 16, 16, generator=rng)
        shown = method.preview(views_of(images), method.draw(2, rng))
        assert len(shown) >= 2
        assert all(p.shape == (2, 1, 16, 16) and p.min() >= 0 and p.max() <= 1 for p in shown.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_section_says_whether_its_method_takes_strong_views(name):
    groups = METHODS[name].views.groups.values()
    assert METHODS[name].config.strong_views == any(group.strength == "strong" for group in groups)
