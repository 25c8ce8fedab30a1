"""No wrong volume without a refusal, over every defect in `tests/support/defects.py`."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defects import AXIAL, CORONAL, DEFECTS, OBLIQUE, Defect, enhanced, mosaic, stack
from hilum.client.intake.planner import SeriesPlan, assemble, plan_series
from hilum.client.intake.planner.naming import SPLIT_WORDS, in_words
from hilum.client.intake.reasons import Reason, Skip

TOLERANCE_MM = 0.01


def orders(made):
    """The files as made, backwards, and in two other orders."""
    yield made
    yield made[::-1]
    for seed in (1, 2):
        yield [made[k] for k in np.random.default_rng(seed).permutation(len(made))]


def channels(made):
    """What a decoder would give, if pixels were coordinates: x, y, z in mm, and the number of the image."""

    def coordinate(axis):
        def get_plane(instance, frame):
            one = made[instance]
            shape = tile(one.instance)
            return one.truths[frame].coordinates(shape)[..., axis]

        return get_plane

    def image(instance, frame):
        one = made[instance]
        return np.full(tile(one.instance), one.truths[frame].image, np.float32)

    return [coordinate(axis) for axis in range(3)], image


def tile(instance):
    side = int(np.ceil(np.sqrt(len(instance.frames)))) if instance.mosaic else 1
    return instance.pixels.rows // side, instance.pixels.columns // side


def copies_differ(volume, made):
    """Whether what was planned as a copy is in truth another image."""
    _coordinates, image = channels(made)
    return any(not np.array_equal(image(*kept), image(*copy)) for kept, copy in volume.verify_equal)


def check_volume(volume, made):
    """Every voxel's value is the coordinate that the affine gives it, and all slices are of one image."""
    within_mm = max(TOLERANCE_MM, volume.quality.spacing_deviation_mm + 1e-3)
    assert within_mm <= max(TOLERANCE_MM, 0.01 * volume.spacing_mm[0]) + 2e-3
    coordinates, image = channels(made)
    images, affine = assemble(volume, image, background=np.nan)
    np.testing.assert_array_equal(affine, volume.affine)
    inside = ~np.isnan(images)
    assert inside.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(np.ptp(images[inside]), 0, err_msg="slices of several images in one volume")
    if volume.tilt is None:
        assert inside.all()
    index = np.moveaxis(np.indices(volume.shape), 0, -1)
    expected = index @ affine[:3, :3].T + affine[:3, 3]
    # A copy lies within the tolerance of the plane that is kept, not always at the very same place.
    kept = replace(volume, verify_equal=())
    for axis, get_plane in enumerate(coordinates):
        found, _affine = assemble(kept, get_plane, background=np.nan)
        np.testing.assert_allclose(found[inside], expected[..., axis][inside], rtol=0, atol=within_mm)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(lengths, volume.spacing_mm, rtol=1e-5)
    if volume.tilt is not None:
        unit = affine[:3, :3] / lengths
        np.testing.assert_allclose(unit.T @ unit, np.eye(3), atol=1e-6)


def check_accounts(plan: SeriesPlan, made):
    """Every file is used or refused, never both, never neither; no frame is used twice."""
    planes = [plane for volume in plan.volumes for plane in volume.planes]
    planes += [image.plane for image in plan.images]
    planes += [plane for cine in plan.cines for plane in cine.planes]
    assert len(set(planes)) == len(planes)
    used = {instance for instance, _frame in planes}
    assert used.isdisjoint(plan.refused)
    assert used | set(plan.refused) == set(range(len(made)))


def names(plan: SeriesPlan, made):
    """A plan in the files' own names, so that plans of two orders can be compared."""
    return {
        volume.key: [(made[i].instance.sop_uid, frame) for i, frame in volume.planes]
        for volume in plan.volumes
    }


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_no_wrong_volume_is_made(defect: Defect):
    made = defect.make()
    first = names(plan_series([one.instance for one in made]), made)
    for ordered in orders(made):
        plan = plan_series([one.instance for one in ordered])
        check_accounts(plan, ordered)
        good, differ = {}, 0
        for volume in plan.volumes:
            if copies_differ(volume, ordered):
                with pytest.raises(Skip, match=Reason.MULTIPLE_TIMES):
                    check_volume(volume, ordered)
                differ += 1
                continue
            check_volume(volume, ordered)
            good[volume.key] = len(volume.planes)
            assert volume.quality.planes == len(volume.planes)
            assert (volume.tilt is not None) == defect.tilted
        assert good == defect.volumes
        assert differ == defect.differ
        assert Counter(plan.refused.values()) == Counter(defect.refused)
        assert (len(plan.images), len(plan.cines)) == (defect.images, defect.cines)
        assert names(plan, ordered) == first


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_wrong_volume_is_made_of_what_is_left_of_a_series(data):
    """Two time points of a stack, of which files are lost, moved, sent again or written over by others."""
    tilt_deg = data.draw(st.sampled_from([(0.0, 0.0), (12.0, 0.0), (0.0, -9.0)]))
    orientation = data.draw(st.sampled_from([AXIAL, CORONAL, OBLIQUE]))
    more = {"tilt_deg": tilt_deg, "orientation": orientation, "family": "mr"}
    made = [
        *stack(12, temporal_position=1.0, **more),
        *stack(12, uid="b", image=1, temporal_position=2.0, **more),
    ]
    some = st.sets(st.integers(0, 23), max_size=5)
    for number in data.draw(some):  # moved along the table, truly: anything but a regular grid
        place = tuple(v + data.draw(st.floats(-3, 3)) for v in made[number].truths[0].origin)
        made[number] = replace(
            made[number].says(position_mm=place),
            truths=(replace(made[number].truths[0], origin=place),),
        )
    again = [made[number].file(sop_uid=f"1.3.{number}") for number in data.draw(some)]
    again += [made[number] for number in data.draw(some)]
    replaced = data.draw(some)
    written_over = [made[number].file(sop_uid=f"1.4.{number}").image(9) for number in replaced]
    lost = data.draw(some) - replaced  # else nothing would tell that the other image is another
    made = [one for number, one in enumerate(made) if number not in lost]
    made = data.draw(st.permutations([*made, *again, *written_over]))
    plan = plan_series([one.instance for one in made])
    check_accounts(plan, made)
    for volume in plan.volumes:
        if copies_differ(volume, made):
            with pytest.raises(Skip, match=Reason.MULTIPLE_TIMES):
                check_volume(volume, made)
        else:
            check_volume(volume, made)


ODD = {
    "echo_number": [None, 1, 2],
    "echo_time_ms": [None, 4.0, 4.01, 9.0, float("nan")],
    "repetition_time_ms": [None, 500.0, 520.0, 2000.0],
    "b_value": [None, 0.0, 1000.0],
    "gradient": [None, (), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)],
    "temporal_position": [None, 1.0, 2.0, float("nan")],
    "trigger_time_ms": [None, 0.0, 1.0],
    "acquisition_number": [None, 1, 2],
    "acquisition_time_s": [None, 1.0, 2.0, 50.0],
    "instance_number": [None, 1, 2, 3],
    "stack": ["", "1", "2"],
    "kvp_kv": [None, 80.0, 80.5, 140.0],
    "kernel": ["", "A", "B"],
    "contrast_agent": ["", "A"],
}


@st.composite
def odd_series(draw):
    """Parts of series of any kind in one, with contrast that makes no sense."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        part = stack(
            draw(st.integers(1, 9)),
            uid=f"{number}",
            family=draw(st.sampled_from(["mr", "mr", "mr", "ct", "ultrasound", "radiograph"])),
            orientation=draw(st.sampled_from([AXIAL, AXIAL, CORONAL, OBLIQUE])),
        )
        for name in draw(st.sets(st.sampled_from(sorted(ODD)), max_size=4)):
            part = [one.contrast(**{name: draw(st.sampled_from(ODD[name]))}) for one in part]
        made += draw(
            st.sampled_from(
                [part, part, [enhanced(part, uid=f"e{number}")], [mosaic(part, uid=f"m{number}")]]
            )
        )
    return draw(st.permutations([*made, *draw(st.lists(st.sampled_from(made), max_size=2))]))


@settings(max_examples=150, deadline=None)
@given(odd_series())
def test_any_mixture_is_planned_in_full_and_alike_for_every_order(made):
    plan = plan_series([one.instance for one in made])
    check_accounts(plan, made)
    backwards = made[::-1]
    assert names(plan_series([one.instance for one in backwards]), backwards) == names(plan, made)


def test_there_are_at_least_sixty_defects():
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS) >= 60


def test_whatever_tells_volumes_apart_has_a_word():
    splits = {
        name
        for defect in DEFECTS
        for volume in plan_series([one.instance for one in defect.make()]).volumes
        for name in volume.quality.split_on
    }
    assert splits > {"echo", "run", "acquisitions", "number_sweep"}
    assert splits <= set(SPLIT_WORDS)


def test_words_are_said_once():
    assert in_words("echo,run") == "echo and gap or change of the slice distance"
    assert in_words("acquisition,acquisition_sweep") == "acquisition number"
