"""Series with one defect each, and what is right for each: which volumes, or which refusals.

Every synthetic slice knows the truth: where each of its pixels lies in the patient, and which image it belongs to. The
header may say something else. So a planned volume can be checked voxel by voxel: its affine has to map each index to
the coordinate that the pixel was made at, and all of its slices have to belong to one image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from hilum.client.intake.instance import Contrast, Frame, Instance, PixelFormat
from hilum.client.intake.reasons import Reason

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
_TURN = math.radians(23.0), math.radians(-11.0)
OBLIQUE = (
    math.cos(_TURN[0]),
    math.sin(_TURN[0]),
    0.0,
    -math.sin(_TURN[0]) * math.cos(_TURN[1]),
    math.cos(_TURN[0]) * math.cos(_TURN[1]),
    math.sin(_TURN[1]),
)


@dataclass(frozen=True)
class Truth:
    """Where a plane really lies, and the image that it belongs to."""

    origin: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    image: int

    def coordinates(self, shape):
        """(H, W, 3), LPS millimetres of each pixel."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        r, c = np.mgrid[: shape[0], : shape[1]]
        return (
            np.array(self.origin)
            + r[..., None] * self.spacing[0] * column
            + c[..., None] * self.spacing[1] * row
        )


@dataclass(frozen=True)
class Made:
    """One file: what its header says, and the truth of each frame."""

    instance: Instance
    truths: tuple[Truth, ...]

    def says(self, frame=0, **changes):
        """The same file with another header in one frame; the truth stays."""
        frames = list(self.instance.frames)
        frames[frame] = replace(frames[frame], **changes)
        return replace(self, instance=replace(self.instance, frames=tuple(frames)))

    def contrast(self, **changes):
        frames = tuple(
            replace(frame, contrast=replace(frame.contrast, **changes)) for frame in self.instance.frames
        )
        return replace(self, instance=replace(self.instance, frames=frames))

    def file(self, **changes):
        return replace(self, instance=replace(self.instance, **changes))

    def pixels(self, **changes):
        return self.file(pixels=replace(self.instance.pixels, **changes))

    def image(self, number):
        return replace(self, truths=tuple(replace(truth, image=number) for truth in self.truths))


def stack(
    n=8,
    *,
    rows=6,
    columns=5,
    spacing=(2.0, 0.7, 0.8),
    orientation=AXIAL,
    origin=(-10.0, -20.0, 5.0),
    tilt_deg=(0.0, 0.0),
    offsets=None,
    family="ct",
    image=0,
    uid="a",
    **contrast,
):
    """A regular series of single-frame files.

    Args:
        tilt_deg: Towards the rows below, and towards the columns to the right.
        offsets: Along the normal in units of the distance; 0, 1, 2, ... where None.
    """
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    normal = np.cross(row, column)
    along = np.arange(n) if offsets is None else np.array(offsets, float)
    sideways = column * math.tan(math.radians(tilt_deg[0])) + row * math.tan(math.radians(tilt_deg[1]))
    made = []
    for number, step in enumerate(along):
        place = tuple((np.array(origin) + step * spacing[0] * (normal + sideways)).tolist())
        frame = Frame(
            index=0,
            spacing_mm=spacing[1:],
            thickness_mm=spacing[0],
            position_mm=place,
            orientation=tuple(orientation),
            contrast=Contrast(vendor="GE", instance_number=number + 1, **contrast),
        )
        made.append(
            Made(
                Instance(
                    sop_uid=f"1.2.{uid}.{number}",
                    series_uid="1.2",
                    study_uid="1",
                    patient_id="p",
                    frame_of_reference="1.9",
                    sop_class="",
                    family=family,
                    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
                    pixels=PixelFormat(
                        "1.2.840.10008.1.2.1", rows, columns, 1, 1, "MONOCHROME2", False, 16, 16, 15, True
                    ),
                    frames=(frame,),
                ),
                (Truth(place, tuple(orientation), spacing[1:], image),),
            )
        )
    return made


def enhanced(slices, uid="e", order=None):
    """One multi-frame object of single-frame files."""
    picked = [slices[k] for k in (order if order is not None else range(len(slices)))]
    frames = tuple(replace(one.instance.frames[0], index=k) for k, one in enumerate(picked))
    first = picked[0].instance
    return Made(
        replace(first, sop_uid=f"1.2.{uid}", frames=frames, pixels=replace(first.pixels, frames=len(frames))),
        tuple(one.truths[0] for one in picked),
    )


def mosaic(slices, uid="m"):
    """One mosaic; its frames are tiles, as `mosaic_frames` makes them."""
    one = enhanced(slices, uid)
    side = math.isqrt(len(slices) - 1) + 1
    pixels = one.instance.pixels
    return one.file(
        mosaic=True,
        pixels=replace(pixels, frames=1, rows=pixels.rows * side, columns=pixels.columns * side),
    )


@dataclass(frozen=True)
class Defect:
    """A defect and what is right.

    Attributes:
        volumes: Slices of each volume, by key.
        refused: How many files are refused for which reason.
        differ: How many volumes are refused once their supposed copies are decoded and differ.
        tilted: Whether the volumes are resampled.
    """

    name: str
    make: Callable[[], list[Made]]
    volumes: dict[str, int] = field(default_factory=dict)
    refused: dict[Reason, int] = field(default_factory=dict)
    differ: int = 0
    tilted: bool = False
    images: int = 0
    cines: int = 0


DEFECTS: list[Defect] = []
WHOLE = {"": 8}


def defect(volumes=None, refused=None, **more):
    """Register a series under the name of the function that makes it."""

    def register(make):
        DEFECTS.append(Defect(make.__name__, make, volumes or {}, refused or {}, **more))
        return make

    return register


def _each(made, change):
    return [change(number, one) for number, one in enumerate(made)]


# --- regular series that stackers stumble over


@defect(WHOLE)
def regular():
    return stack()


@defect(WHOLE)
def reversed_order():
    return stack()[::-1]


@defect(WHOLE)
def shuffled_order():
    return [stack()[k] for k in (3, 0, 7, 5, 1, 6, 2, 4)]


@defect(WHOLE)
def lying_instance_numbers():
    return _each(stack(), lambda k, one: one.contrast(instance_number=8 - k))


@defect(WHOLE)
def random_instance_numbers():
    return _each(stack(), lambda k, one: one.contrast(instance_number=(7919 * k) % 101))


@defect(WHOLE)
def absent_instance_numbers():
    return _each(stack(), lambda k, one: one.contrast(instance_number=None))


@defect(WHOLE)
def equal_instance_numbers():
    return _each(stack(), lambda k, one: one.contrast(instance_number=1))


@defect(WHOLE)
def left_handed_columns():
    return stack(orientation=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))


@defect(WHOLE)
def left_handed_rows():
    return stack(orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0))


@defect(WHOLE)
def feet_first():
    return stack(spacing=(2.0, 0.7, 0.8), offsets=[-k for k in range(8)])


@defect(WHOLE)
def coronal():
    return stack(orientation=CORONAL)


@defect(WHOLE)
def sagittal():
    return stack(orientation=SAGITTAL)


@defect(WHOLE)
def oblique():
    return stack(orientation=OBLIQUE)


@defect(WHOLE)
def anisotropic():
    return stack(spacing=(6.5, 0.35, 1.9))


@defect(WHOLE)
def thinner_than_a_tenth_of_a_millimetre():
    return stack(spacing=(0.09, 0.05, 0.05))


@defect({"": 4})
def four_slices_exactly():
    return stack(4)


@defect(WHOLE)
def per_slice_rescale():
    return _each(stack(), lambda k, one: one.says(slope=1.0 + k / 10, intercept=-1000.0 - k))


@defect(WHOLE)
def acquisition_numbers_differ():
    return _each(stack(), lambda k, one: one.contrast(acquisition_number=k))


@defect({"acquisition=1": 4, "acquisition=2": 4})
def interleaved_acquisitions():
    return _each(
        stack(),
        lambda k, one: one.contrast(acquisition_number=k % 2, acquisition_time_s=40.0 * (k % 2) + k).image(
            k % 2
        ),
    )


@defect(WHOLE)
def acquisition_times_differ():
    return _each(stack(), lambda k, one: one.contrast(acquisition_time_s=100.0 - k))


@defect(WHOLE)
def trigger_times_differ_along_the_stack():
    return _each(stack(family="mr"), lambda k, one: one.contrast(trigger_time_ms=30.0 * k))


@defect(WHOLE)
def gated_repetition_times():
    return _each(stack(family="mr"), lambda k, one: one.contrast(repetition_time_ms=800.0 + 15 * (k % 3)))


@defect(WHOLE)
def temporal_position_counts_the_slices():
    return _each(stack(family="mr"), lambda k, one: one.contrast(temporal_position=float(k)))


@defect(WHOLE)
def positions_rounded_to_two_decimals():
    made = stack(spacing=(0.625, 0.7, 0.8), orientation=OBLIQUE)
    return _each(
        made,
        lambda k, one: one.says(position_mm=tuple(round(v, 2) for v in one.instance.frames[0].position_mm)),
    )


@defect(WHOLE)
def cosines_rounded_to_four_decimals():
    return _each(
        stack(orientation=OBLIQUE), lambda k, one: one.says(orientation=tuple(round(v, 4) for v in OBLIQUE))
    )


@defect(WHOLE)
def cosines_differ_in_the_sixth_decimal():
    return _each(
        stack(orientation=OBLIQUE),
        lambda k, one: one.says(orientation=tuple(v + 1e-6 * (k % 2) for v in OBLIQUE)),
    )


@defect(WHOLE)
def thickness_smaller_than_the_distance():
    return _each(stack(), lambda k, one: one.says(thickness_mm=1.0))


@defect(WHOLE)
def thickness_larger_than_the_distance():
    return _each(stack(), lambda k, one: one.says(thickness_mm=4.0))


@defect(WHOLE)
def thickness_absent():
    return _each(stack(), lambda k, one: one.says(thickness_mm=None))


@defect(WHOLE)
def far_from_the_isocentre():
    return stack(origin=(1500.0, -2200.0, 3700.0))


@defect(WHOLE)
def pet_slices():
    return stack(family="pet")


# --- missing and unequal slices


@defect({"run=1": 4, "run=2": 5})
def missing_slice_in_the_middle():
    return stack(offsets=[0, 1, 2, 3, 5, 6, 7, 8, 9], n=9)


@defect({"": 7}, {Reason.IRREGULAR_SPACING: 1})
def missing_slice_after_the_first():
    return stack(offsets=[0, 2, 3, 4, 5, 6, 7, 8])


@defect({"": 5}, {Reason.IRREGULAR_SPACING: 3})
def missing_slice_near_the_end():
    return stack(offsets=[0, 1, 2, 3, 4, 6, 7, 8])


@defect({}, {Reason.IRREGULAR_SPACING: 6})
def missing_slice_in_a_short_series():
    return stack(6, offsets=[0, 1, 2, 4, 5, 6])


@defect({}, {Reason.IRREGULAR_SPACING: 8})
def every_third_slice_missing():
    return stack(offsets=[0, 1, 3, 4, 6, 7, 9, 10])


@defect({}, {Reason.IRREGULAR_SPACING: 8})
def unequal_distances():
    return stack(offsets=[0, 1.0, 2.2, 3.1, 4.5, 5.2, 6.6, 7.3])


@defect({}, {Reason.IRREGULAR_SPACING: 12})
def mostly_unequal_with_four_regular_by_chance():
    return stack(12, offsets=[0, 1, 2, 3, 4.4, 5.1, 6.7, 7.2, 8.9, 9.3, 10.8, 11.5])


@defect({"run=1": 6, "run=2": 5})
def two_to_five_millimetres():
    offsets = [0, 1, 2, 3, 4, 5, 7.5, 10, 12.5, 15, 17.5]
    return stack(11, offsets=offsets)


@defect({}, {Reason.IRREGULAR_SPACING: 8})
def slowly_growing_distance():
    return stack(offsets=[k + 0.02 * k * k for k in range(8)])


@defect({}, {Reason.IRREGULAR_SPACING: 20})
def distance_changes_by_little_and_adds_up():
    return stack(20, offsets=[*range(10), *(9 + 1.015 * k for k in range(1, 11))])


@defect({"": 4}, {Reason.IRREGULAR_SPACING: 4})
def one_slice_off_by_a_twentieth():
    return stack(offsets=[0, 1, 2, 3.05, 4, 5, 6, 7])


@defect({"": 8}, {Reason.IRREGULAR_SPACING: 1})
def a_slice_beyond_the_end():
    return [*stack(), *stack(1, offsets=[9.5], uid="x")]


@defect({"": 8}, {Reason.MISSING_ATTRIBUTE: 1})
def one_position_absent_beyond_the_end():
    made = stack(9)
    return [*made[:8], made[8].says(position_mm=None)]


@defect({"run=1": 4, "run=2": 4}, {Reason.MISSING_ATTRIBUTE: 1})
def one_position_absent_in_the_middle():
    made = stack(9)
    return [*made[:4], made[4].says(position_mm=None), *made[5:]]


# --- copies


@defect(WHOLE, {Reason.DUPLICATE: 1})
def same_file_twice():
    return [*stack(), stack()[3]]


@defect(WHOLE, {Reason.DUPLICATE: 8})
def whole_series_twice():
    return [*stack(), *stack()]


@defect(WHOLE, {Reason.DUPLICATE: 1})
def same_uid_other_compression():
    return [*stack(), stack()[3].pixels(syntax="1.2.840.10008.1.2.5")]


@defect({}, {Reason.DUPLICATE: 1}, differ=1)
def same_uid_other_pixels():
    return [*stack(), stack()[3].image(1)]


@defect({"run=1": 4, "run=2": 4}, {Reason.CONTRADICTING_COPIES: 2})
def same_uid_two_positions():
    made = stack(9)
    return [*made, made[4].says(position_mm=(-10.0, -20.0, 99.0))]


@defect({}, {Reason.CONTRADICTING_COPIES: 8})
def one_uid_for_all():
    return _each(stack(), lambda k, one: one.file(sop_uid="1.2.3"))


@defect(WHOLE, {Reason.DUPLICATE: 1})
def same_position_same_pixels():
    return [*stack(), stack(uid="z")[3]]


@defect({}, {Reason.DUPLICATE: 1}, differ=1)
def same_position_other_pixels():
    return [*stack(), stack(uid="z", image=1)[3]]


@defect({}, {Reason.DUPLICATE: 8}, differ=1)
def two_series_in_one_without_a_difference():
    return [*stack(), *stack(uid="z", image=1)]


@defect(WHOLE, {Reason.TOO_FEW_SLICES: 1})
def one_slice_taken_again_later():
    made = _each(stack(), lambda k, one: one.contrast(acquisition_time_s=float(k)))
    return [*made, stack(uid="z", image=1)[3].contrast(acquisition_time_s=50.0)]


# --- several images at each position


def _two(first, second, **more):
    return [*stack(family="mr", **more, **first), *stack(family="mr", uid="b", image=1, **more, **second)]


@defect({"time=1": 8, "time=2": 8})
def two_time_points():
    return _two({"temporal_position": 1.0}, {"temporal_position": 2.0})


@defect({"time=1": 8, "time=2": 8})
def two_time_points_at_interleaved_positions():
    return [
        *stack(family="mr", temporal_position=1.0),
        *stack(family="mr", uid="b", image=1, temporal_position=2.0, origin=(-10.0, -20.0, 6.0)),
    ]


@defect({"time=1": 8, "time=2": 6})
def the_last_time_point_ends_early():
    return _two({"temporal_position": 1.0}, {"temporal_position": 2.0})[:14]


@defect({"": 8}, {Reason.TOO_FEW_SLICES: 2})
def the_last_time_point_hardly_began():
    return _two({"temporal_position": 1.0, "echo_number": 1}, {"temporal_position": 2.0, "echo_number": 2})[
        :10
    ]


@defect({"echo=1": 8, "echo=2": 8})
def two_echoes():
    return _two({"echo_number": 1, "echo_time_ms": 4.9}, {"echo_number": 2, "echo_time_ms": 9.8})


@defect({"echo_time=1": 8, "echo_time=2": 8})
def two_echo_times_without_numbers():
    return _two({"echo_time_ms": 4.9}, {"echo_time_ms": 9.8})


@defect({"echo=1": 4, "echo=2": 4})
def echo_changes_along_the_stack():
    made = stack(family="mr")
    return _each(made, lambda k, one: one.contrast(echo_number=1 + k // 4).image(k // 4))


@defect({"component=1": 8, "component=2": 8})
def magnitude_and_phase():
    return _two({"component": "M"}, {"component": "P"})


@defect({"type=1": 8, "type=2": 8})
def magnitude_and_phase_by_image_type():
    return _two({"image_type": ("ORIGINAL", "PRIMARY", "M")}, {"image_type": ("ORIGINAL", "PRIMARY", "P")})


@defect({"coil=1": 8, "coil=2": 8})
def two_coils():
    return _two({"coil": "HEAD 1"}, {"coil": "HEAD 2"})


@defect({"flip=1": 8, "flip=2": 8})
def two_flip_angles():
    return _two({"flip_angle_deg": 5.0}, {"flip_angle_deg": 26.0})


@defect({"repetition=1": 8, "repetition=2": 8})
def two_repetition_times():
    return _two({"repetition_time_ms": 500.0}, {"repetition_time_ms": 2000.0})


@defect(
    {
        "repetition=1,repetition_step=1": 8,
        "repetition=1,repetition_step=2": 8,
        "repetition=2,repetition_step=1": 8,
        "repetition=2,repetition_step=2": 8,
    }
)
def four_repetition_times_in_close_pairs():
    made = []
    for number, time_ms in enumerate((500.0, 520.0, 2000.0, 2010.0)):
        made += stack(family="mr", uid=f"q{number}", image=number, repetition_time_ms=time_ms)
    return made


@defect({"repetition_step=1": 8, "repetition_step=2": 8})
def two_repetition_times_that_are_close():
    return _two({"repetition_time_ms": 500.0}, {"repetition_time_ms": 520.0})


@defect({"inversion=1": 8, "inversion=2": 8})
def two_inversion_times():
    return _two({"inversion_time_ms": 100.0}, {"inversion_time_ms": 2500.0})


@defect({"b=1": 8, "b=2": 8})
def two_b_values():
    return _two({"b_value": 0.0}, {"b_value": 1000.0})


@defect({"gradient=1": 8, "gradient=2": 8})
def two_gradients():
    return _two(
        {"b_value": 800.0, "gradient": (1.0, 0.0, 0.0)}, {"b_value": 800.0, "gradient": (0.0, 1.0, 0.0)}
    )


@defect({"echo=1,time=1": 8, "echo=1,time=2": 8, "echo=2,time=1": 8, "echo=2,time=2": 8})
def echoes_times_time_points():
    made = []
    for number, (echo, time) in enumerate([(1, 1.0), (1, 2.0), (2, 1.0), (2, 2.0)]):
        made += stack(family="mr", uid=f"q{number}", image=number, echo_number=echo, temporal_position=time)
    return made


@defect({"trigger=1": 8, "trigger=2": 8, "trigger=3": 8})
def cardiac_phases_whose_trigger_times_drift():
    made = []
    for phase in range(3):
        one = stack(family="mr", uid=f"q{phase}", image=phase)
        made += _each(one, lambda k, m, phase=phase: m.contrast(trigger_time_ms=(33.0 + 0.7 * k) * phase))
    return made


@defect({"trigger_sweep=1": 8, "trigger_sweep=2": 8, "trigger_sweep=3": 7})
def a_cardiac_phase_is_missing_at_one_slice():
    return cardiac_phases_whose_trigger_times_drift()[:-1]


@defect({"acquisition=1": 8, "acquisition=2": 8})
def two_passes_told_apart_by_acquisition_number():
    return [*stack(acquisition_number=1), *stack(uid="b", image=1, acquisition_number=2)]


@defect({"acquisition=1": 8, "acquisition=2": 7})
def two_passes_by_acquisition_number_and_one_slice_missing():
    return two_passes_told_apart_by_acquisition_number()[:-1]


@defect({"pass=1": 8, "pass=2": 8})
def two_passes_told_apart_by_time():
    made = []
    for number in range(2):
        one = stack(uid=f"q{number}", image=number)
        made += _each(one, lambda k, m, number=number: m.contrast(acquisition_time_s=100.0 * number + k))
    return made


@defect({"pass=1": 8, "pass=2": 8})
def two_images_at_a_time_slice_after_slice():
    made = []
    for number in range(2):
        one = stack(uid=f"q{number}", image=number)
        made += _each(one, lambda k, m, number=number: m.contrast(acquisition_time_s=10.0 * k + number))
    return made


@defect({}, {Reason.MULTIPLE_TIMES: 16})
def times_without_a_pattern():
    times = [[3, 9, 1, 14, 7, 12, 5, 2], [4, 6, 11, 8, 15, 10, 13, 0]]
    made = []
    for number in range(2):
        one = stack(uid=f"q{number}", image=number)
        made += _each(one, lambda k, m, number=number: m.contrast(acquisition_time_s=float(times[number][k])))
    return made


def _numbered(numbers):
    both = [*stack(), *stack(uid="z", image=1)]
    return [one.contrast(instance_number=number) for one, number in zip(both, numbers, strict=True)]


@defect({"number=1": 8, "number=2": 8})
def two_time_points_numbered_one_after_the_other():
    return _numbered([*range(1, 9), *range(9, 17)])


@defect({}, {Reason.DUPLICATE: 8}, differ=1)
def two_time_points_numbered_slice_after_slice():
    return _numbered([*range(1, 17, 2), *range(2, 17, 2)])


@defect({}, {Reason.DUPLICATE: 8}, differ=1)
def two_time_points_numbered_at_random():
    return _numbered([(7 * k) % 17 for k in range(1, 17)])


@defect({"number_sweep=1": 8, "number_sweep=2": 8})
def two_time_points_numbered_backwards_in_the_second():
    return _numbered([*range(1, 9), *range(16, 8, -1)])


@defect({"acquisition=1": 8, "acquisition=2": 8})
def overlapping_acquisitions_at_other_positions():
    return [
        *stack(acquisition_number=1),
        *stack(uid="b", image=1, acquisition_number=2, offsets=[k + 5.4 for k in range(8)]),
    ]


@defect({}, {Reason.TOO_FEW_SLICES: 8})
def one_slice_over_time():
    return _each(stack(offsets=[0] * 8), lambda k, one: one.contrast(temporal_position=float(k)))


# --- passes over one region, at positions between one another


def _shifted(n=8, *, shift=0.5, start=0.0, image=1, uid="b", first_number=9, down=False, **contrast):
    """A second pass: its positions lie a part of a step further, its numbers go on."""
    made = stack(n, uid=uid, image=image, offsets=[k + shift + start for k in range(n)], **contrast)
    order = range(n)[::-1] if down else range(n)
    return [made[k].contrast(instance_number=first_number + rank) for rank, k in enumerate(order)]


def _unnumbered(made):
    return [one.contrast(instance_number=None) for one in made]


TWO_SWEEPS = {"number_sweep=1": 8, "number_sweep=2": 8}
TWO_ACQUISITIONS = {"acquisition=1": 8, "acquisition=2": 8}


@defect(TWO_ACQUISITIONS)
def passes_half_a_step_apart_by_acquisition():
    return _unnumbered([*stack(acquisition_number=1), *_shifted(acquisition_number=2)])


@defect({f"acquisition={k}": 8 for k in (1, 2, 3)})
def three_passes_a_third_of_a_step_apart_by_acquisition():
    made = [
        _shifted(uid=f"q{k}", image=k, shift=k / 3, acquisition_number=k, first_number=1 + 8 * k)
        for k in range(3)
    ]
    return [one for part in made for one in part]


@defect(TWO_ACQUISITIONS)
def passes_that_overlap_by_half_a_step_by_acquisition():
    return _unnumbered([*stack(acquisition_number=1), *_shifted(start=5, acquisition_number=2)])


@defect(TWO_ACQUISITIONS)
def passes_that_share_one_position_by_acquisition():
    return [*stack(acquisition_number=1), *_shifted(shift=7, acquisition_number=2)]


@defect({"acquisition=1": 8, "acquisition=2": 5})
def a_short_second_pass_by_acquisition():
    return _unnumbered([*stack(acquisition_number=1), *_shifted(5, start=1, acquisition_number=2)])


@defect(WHOLE, {Reason.TOO_FEW_SLICES: 3})
def a_second_pass_too_short_for_a_volume_by_acquisition():
    return [*stack(acquisition_number=1), *_shifted(3, start=2, acquisition_number=2)]


@defect(WHOLE)
def acquisitions_that_follow_one_another_are_one_stack():
    return _each(stack(), lambda k, one: one.contrast(acquisition_number=1 + k // 2))


@defect({"acquisitions=1": 8, "acquisitions=2": 8})
def two_passes_of_several_acquisitions_each():
    first = _each(stack(), lambda k, one: one.contrast(acquisition_number=1 + k // 4))
    return [*first, *_each(_shifted(), lambda k, one: one.contrast(acquisition_number=3 + k // 4))]


@defect({"agent=1": 8, "agent=2": 8})
def passes_before_and_after_the_contrast_agent():
    return _unnumbered([*stack(), *_shifted(contrast_agent="AGENT")])


@defect({"agent=1": 8, "agent=2": 8})
def passes_at_equal_positions_before_and_after_the_contrast_agent():
    return [*stack(), *stack(uid="b", image=1, contrast_agent="AGENT")]


@defect({"kvp=1": 8, "kvp=2": 8})
def passes_half_a_step_apart_by_voltage():
    return [*stack(kvp_kv=80.0), *_shifted(kvp_kv=140.0)]


@defect({"kvp=1": 8, "kvp=2": 8})
def passes_at_equal_positions_by_voltage():
    return [*stack(kvp_kv=80.0), *stack(uid="b", image=1, kvp_kv=140.0)]


@defect(WHOLE)
def a_voltage_that_some_slices_do_not_tell():
    return _each(stack(), lambda k, one: one.contrast(kvp_kv=None if k % 3 else 120.0))


@defect({"kernel=1": 8, "kernel=2": 8})
def two_kernels_half_a_step_apart():
    return [*stack(kernel="B30f"), *_shifted(kernel="B70f")]


@defect({"type=1": 8, "type=2": 8})
def two_image_types_half_a_step_apart():
    return [
        *stack(image_type=("ORIGINAL", "PRIMARY", "A")),
        *_shifted(image_type=("ORIGINAL", "PRIMARY", "B")),
    ]


@defect({"time_sweep=1": 8, "time_sweep=2": 8})
def passes_half_a_step_apart_by_time():
    first = _each(stack(), lambda k, one: one.contrast(acquisition_time_s=float(k)))
    second = _each(_shifted(), lambda k, one: one.contrast(acquisition_time_s=100.0 - k))
    return _unnumbered([*first, *second])


@defect({"time_sweep=1": 8, "time_sweep=2": 8})
def passes_half_a_step_apart_of_one_time_each():
    return _unnumbered([*stack(acquisition_time_s=10.0), *_shifted(acquisition_time_s=20.0)])


@defect({"trigger_sweep=1": 8, "trigger_sweep=2": 8})
def passes_half_a_step_apart_by_trigger_time():
    return _unnumbered([*stack(trigger_time_ms=0.0), *_shifted(trigger_time_ms=400.0)])


@defect(TWO_SWEEPS)
def passes_half_a_step_apart_by_number():
    return [*stack(), *_shifted()]


@defect(TWO_SWEEPS)
def passes_half_a_step_apart_and_back_by_number():
    return [*stack(), *_shifted(down=True)]


@defect(TWO_SWEEPS)
def passes_that_overlap_at_their_ends_by_number():
    return [*stack(), *_shifted(start=5)]


@defect(TWO_SWEEPS)
def passes_that_overlap_and_go_back_by_number():
    return [*stack(), *_shifted(start=5, down=True)]


@defect(TWO_SWEEPS)
def passes_that_share_one_position_by_number():
    return [*stack(), *_shifted(shift=7)]


@defect({"number_sweep=1": 8, "number_sweep=2": 4})
def a_short_second_pass_by_number():
    return [*stack(), *_shifted(4, start=2)]


@defect(WHOLE)
def mr_slices_measured_every_other_one_first():
    made = stack(family="mr")
    return _each(
        made,
        lambda k, one: one.contrast(
            acquisition_time_s=k + 50.0 * (k % 2), instance_number=1 + k // 2 + 4 * (k % 2)
        ),
    )


@defect({}, {Reason.OVERLAPPING_PASSES: 16})
def passes_half_a_step_apart_by_nothing():
    return _unnumbered([*stack(), *_shifted()])


@defect({}, {Reason.OVERLAPPING_PASSES: 24})
def three_passes_a_third_of_a_step_apart_by_nothing():
    made = [one for k in range(3) for one in _shifted(uid=f"q{k}", image=k, shift=k / 3)]
    return _unnumbered(made)


@defect({"run=1": 6, "run=2": 5}, {Reason.OVERLAPPING_PASSES: 5})
def passes_that_overlap_at_their_ends_by_nothing():
    return _unnumbered([*stack(), *_shifted(start=5)])


@defect({"run=1": 6, "run=2": 5}, {Reason.OVERLAPPING_PASSES: 5})
def passes_without_thickness_that_overlap_at_their_ends_by_nothing():
    made = _unnumbered([*stack(), *_shifted(start=5)])
    return [one.says(thickness_mm=None) for one in made]


@defect(WHOLE)
def overlapping_reconstruction_of_one_pass():
    return _each(stack(), lambda k, one: one.says(thickness_mm=4.0).contrast(instance_number=8 - k))


@defect({"run=1": 8, "run=2": 8})
def passes_with_a_gap_between_them_by_nothing():
    return _unnumbered([*stack(), *_shifted(start=20)])


@defect(WHOLE)
def a_frame_of_reference_for_each_slice():
    return _each(stack(), lambda k, one: one.file(frame_of_reference=f"1.9.{k}"))


@defect({"echo=1": 8, "echo=2": 8})
def a_frame_of_reference_for_each_place_of_two_echoes():
    both = _two({"echo_number": 1}, {"echo_number": 2})
    return _each(both, lambda k, one: one.file(frame_of_reference=f"1.9.{k % 8}"))


@defect(WHOLE)
def a_frame_of_reference_that_some_slices_lack():
    return _each(stack(), lambda k, one: one.file(frame_of_reference="" if k % 3 else "1.9"))


@defect(WHOLE)
def a_frame_of_reference_for_each_slice_that_has_one():
    return _each(stack(), lambda k, one: one.file(frame_of_reference="" if k == 2 else f"1.9.{k}"))


@defect({}, {Reason.IRREGULAR_SPACING: 8})
def a_frame_of_reference_for_each_slice_of_no_stack():
    made = stack(offsets=[0, 1.0, 2.2, 3.1, 4.5, 5.2, 6.6, 7.3])
    return _each(made, lambda k, one: one.file(frame_of_reference=f"1.9.{k}"))


@defect({"frame_of_reference=1": 4, "frame_of_reference=2": 4})
def two_frames_of_reference_that_follow_one_another():
    return _each(stack(), lambda k, one: one.file(frame_of_reference=f"1.9.{k // 4}").image(k // 4))


@defect({}, {Reason.MIXED_GEOMETRY: 6})
def two_frames_of_reference_of_three_slices():
    return _each(stack(6), lambda k, one: one.file(frame_of_reference=f"1.9.{k // 3}").image(k // 3))


# --- tilt


@defect(WHOLE, tilted=True)
def tilted_towards_the_rows():
    return stack(tilt_deg=(18.0, 0.0))


@defect(WHOLE, tilted=True)
def tilted_back_towards_the_rows():
    return stack(tilt_deg=(-23.5, 0.0))


@defect(WHOLE, tilted=True)
def tilted_towards_the_columns():
    return stack(tilt_deg=(0.0, 12.0))


@defect(WHOLE, tilted=True)
def tilted_back_towards_the_columns():
    return stack(tilt_deg=(0.0, -12.0))


@defect(WHOLE, tilted=True)
def tilted_both_ways():
    return stack(tilt_deg=(9.0, -14.0))


@defect(WHOLE, tilted=True)
def tilted_oblique():
    return stack(tilt_deg=(15.0, 4.0), orientation=OBLIQUE)


@defect(WHOLE)
def tilted_a_twentieth_of_a_degree():
    return stack(tilt_deg=(0.05, 0.0))


@defect({"run=1": 4, "run=2": 4}, tilted=True)
def tilted_with_a_missing_slice():
    return stack(offsets=[0, 1, 2, 3, 5, 6, 7, 8], tilt_deg=(18.0, 0.0))


@defect({"time=1": 8, "time=2": 8}, tilted=True)
def tilted_at_two_time_points():
    return _two({"temporal_position": 1.0}, {"temporal_position": 2.0}, tilt_deg=(18.0, 0.0))


@defect({}, {Reason.TOO_LARGE: 8})
def tilted_with_pixels_of_a_nanometre():
    made = stack(tilt_deg=(18.0, 0.0))
    return [one.says(spacing_mm=(1e-6, 1e-6)) for one in made]


@defect({}, {Reason.LYING_GEOMETRY: 8})
def tilted_beyond_any_gantry():
    return stack(tilt_deg=(60.0, 0.0))


# --- scouts and other geometries mixed in


@defect(WHOLE, {Reason.LOCALIZER: 1})
def localizer_by_image_type():
    scout = stack(1, orientation=CORONAL, uid="s")[0]
    return [*stack(), scout.file(image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"))]


@defect(WHOLE, {Reason.LOCALIZER: 1})
def localizer_by_orientation_only():
    return [*stack(), stack(1, orientation=CORONAL, uid="s")[0]]


@defect(WHOLE, {Reason.LOCALIZER: 2})
def two_scouts_of_another_size():
    scouts = [
        *stack(1, orientation=CORONAL, uid="s", rows=9),
        *stack(1, orientation=SAGITTAL, uid="t", rows=9),
    ]
    return [*stack(), *scouts]


@defect({"orientation=1": 8, "orientation=2": 8})
def two_orientations():
    return [*stack(), *stack(uid="b", image=1, orientation=SAGITTAL)]


@defect({}, {Reason.MIXED_GEOMETRY: 9})
def three_planes_of_three_slices():
    return [
        *stack(3),
        *stack(3, uid="b", image=1, orientation=SAGITTAL),
        *stack(3, uid="c", image=2, orientation=CORONAL),
    ]


@defect({}, {Reason.MIXED_GEOMETRY: 12})
def radial_slices():
    made = []
    for k in range(12):
        angle = math.pi * k / 12
        made += stack(1, uid=f"r{k}", orientation=(math.cos(angle), math.sin(angle), 0.0, 0.0, 0.0, -1.0))
    return made


@defect({}, {Reason.LYING_GEOMETRY: 8})
def curved_stack():
    made = stack()
    return _each(made, lambda k, one: _moved(one, (0.0, 3.0 * math.sin(0.9 * k), 0.0)))


def _moved(one, way):
    """Header and truth both lie elsewhere."""
    place = tuple(a + b for a, b in zip(one.truths[0].origin, way, strict=True))
    return replace(one.says(position_mm=place), truths=(replace(one.truths[0], origin=place),))


@defect({"size=1": 8, "size=2": 8})
def rows_change():
    return [*stack(), *stack(uid="b", rows=7, offsets=[k + 8 for k in range(8)])]


@defect({"run=1": 4, "run=2": 4}, {Reason.MIXED_GEOMETRY: 1})
def one_slice_of_another_size():
    made = stack(9)
    return [*made[:4], made[4].pixels(rows=12), *made[5:]]


@defect({"spacing=1": 8, "spacing=2": 8})
def pixel_spacing_changes():
    return [*stack(), *stack(uid="b", spacing=(2.0, 0.9, 0.8), offsets=[k + 8 for k in range(8)])]


@defect({"spacing=1": 4, "spacing=2": 4})
def pixel_spacing_changes_by_half_a_percent():
    return [*stack(4), *stack(4, uid="b", spacing=(2.0, 0.7035, 0.8), offsets=[k + 4 for k in range(4)])]


@defect({"run=1": 4, "run=2": 4}, {Reason.MIXED_GEOMETRY: 1})
def one_slice_of_another_vendor():
    made = stack(9)
    return [*made[:4], made[4].contrast(vendor="SIEMENS"), *made[5:]]


@defect({"run=1": 4, "run=2": 4}, {Reason.MIXED_GEOMETRY: 1})
def one_slice_inverted():
    made = stack(9)
    return [*made[:4], made[4].pixels(photometric="MONOCHROME1"), *made[5:]]


@defect({"frame_of_reference=1": 8, "frame_of_reference=2": 8})
def two_frames_of_reference():
    return [*stack(), *_each(stack(uid="b", image=1), lambda k, one: one.file(frame_of_reference="1.8"))]


@defect({"family=1": 8, "family=2": 8})
def ct_and_pet_in_one_series():
    return [*stack(), *stack(family="pet", uid="b", image=1)]


@defect({"station=1": 8, "station=2": 8})
def two_stations_side_by_side():
    return [
        *stack(orientation=CORONAL),
        *stack(orientation=CORONAL, uid="b", image=0, origin=(-10.0, -20.0, 305.0)),
    ]


# --- positions and directions that can't be true


@defect({}, {Reason.TOO_FEW_SLICES: 1})
def single_slice():
    return stack(1)


@defect({}, {Reason.TOO_FEW_SLICES: 3})
def three_slices():
    return stack(3)


@defect({}, {Reason.LYING_GEOMETRY: 8})
def position_not_a_number():
    return _each(stack(), lambda k, one: one.says(position_mm=(math.nan, 0.0, 2.0 * k)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def position_infinite():
    return _each(stack(), lambda k, one: one.says(position_mm=(0.0, math.inf, 2.0 * k)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def positions_astronomical():
    return _each(stack(), lambda k, one: one.says(position_mm=(0.0, 0.0, 2.0e12 * (k + 1))))


@defect({}, {Reason.MISSING_ATTRIBUTE: 8})
def position_absent():
    return _each(stack(), lambda k, one: one.says(position_mm=None))


@defect({}, {Reason.MISSING_ATTRIBUTE: 8})
def orientation_absent():
    return _each(stack(), lambda k, one: one.says(orientation=None))


@defect({}, {Reason.MISSING_ATTRIBUTE: 8})
def spacing_absent():
    return _each(stack(), lambda k, one: one.says(spacing_mm=None))


@defect({}, {Reason.MISSING_ATTRIBUTE: 8})
def position_of_two_numbers():
    return _each(stack(), lambda k, one: one.says(position_mm=(1.0, 2.0)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def spacing_zero():
    return _each(stack(), lambda k, one: one.says(spacing_mm=(0.0, 0.8)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def spacing_not_a_number():
    return _each(stack(), lambda k, one: one.says(spacing_mm=(math.nan, 0.8)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def cosines_not_of_unit_length():
    return _each(stack(), lambda k, one: one.says(orientation=(1.1, 0.0, 0.0, 0.0, 1.1, 0.0)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def cosines_zero():
    return _each(stack(), lambda k, one: one.says(orientation=(0.0,) * 6))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def cosines_not_at_right_angles():
    return _each(stack(), lambda k, one: one.says(orientation=(1.0, 0.0, 0.0, 0.6, 0.8, 0.0)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def all_positions_equal():
    return _each(stack(), lambda k, one: one.says(position_mm=(-10.0, -20.0, 5.0)))


@defect({}, {Reason.LYING_GEOMETRY: 8})
def positions_move_within_the_plane():
    return _each(stack(), lambda k, one: one.says(position_mm=(-10.0 + 3 * k, -20.0, 5.0)))


@defect({}, {Reason.UNSUPPORTED_PIXELS: 8})
def colour_slices():
    return _each(stack(), lambda k, one: one.pixels(samples=3, photometric="RGB"))


# --- enhanced multi-frame, mosaics, cine and single images


@defect(WHOLE)
def enhanced_frames_in_order():
    return [enhanced(stack())]


@defect(WHOLE)
def enhanced_frames_shuffled():
    return [enhanced(stack(), order=(3, 0, 7, 5, 1, 6, 2, 4))]


@defect({"stack=1": 8, "stack=2": 5})
def enhanced_with_two_stacks():
    return [enhanced([*stack(stack="1"), *stack(5, uid="b", image=1, stack="2", origin=(0.0, 0.0, 300.0))])]


@defect({"": 8})
def enhanced_with_one_usable_stack():
    return [enhanced([*stack(stack="1"), *stack(2, uid="b", image=1, stack="2", orientation=CORONAL)])]


@defect({"time=1": 8, "time=2": 8})
def enhanced_with_time_points_interleaved():
    both = _two({"temporal_position": 1.0}, {"temporal_position": 2.0})
    return [enhanced(both, order=[k // 2 + 8 * (k % 2) for k in range(16)])]


@defect({"object=1": 8, "object=2": 8})
def one_enhanced_object_per_time_point():
    return [enhanced(stack()), enhanced(stack(image=1), uid="f")]


@defect({}, {Reason.UNSUPPORTED_MULTIFRAME: 1})
def enhanced_without_places():
    frames = [one.says(position_mm=None, orientation=None) for one in stack()]
    return [enhanced(frames)]


@defect({"run=1": 4, "run=2": 4})
def enhanced_with_one_frame_without_a_place():
    made = stack(9)
    return [enhanced([*made[:4], made[4].says(position_mm=None), *made[5:]])]


@defect({"trigger_sweep=1": 8, "trigger_sweep=2": 7})
def enhanced_with_times_that_make_no_grid():
    both = _two({"trigger_time_ms": 1.0}, {"trigger_time_ms": 2.0})
    return [enhanced(both[:15])]


@defect(WHOLE, {Reason.DUPLICATE: 1})
def enhanced_object_twice():
    return [enhanced(stack()), enhanced(stack())]


@defect({"": 8})
def one_mosaic():
    return [mosaic(stack(family="mr"))]


@defect({"mosaic=1": 8, "mosaic=2": 8, "mosaic=3": 8})
def three_mosaics():
    return [mosaic(stack(family="mr", image=k, acquisition_number=k), uid=f"m{k}") for k in range(3)]


@defect({}, {Reason.TOO_FEW_SLICES: 1})
def a_mosaic_of_three_slices():
    return [mosaic(stack(3, family="mr"))]


@defect({"": 8})
def ultrasound_volume():
    return [enhanced(stack(family="ultrasound"))]


@defect(cines=1)
def ultrasound_cine():
    frames = [one.says(position_mm=None, orientation=None) for one in stack(family="ultrasound")]
    return [enhanced(frames)]


@defect(cines=1)
def angiogram_at_one_place():
    return [enhanced(stack(family="angiogram", offsets=[0] * 8))]


@defect(images=2)
def two_radiographs():
    return stack(2, family="radiograph")


@defect(images=5)
def secondary_captures_with_positions():
    return stack(5, family="secondary")


@defect({}, {Reason.UNSUPPORTED_MULTIFRAME: 1})
def radiograph_of_many_frames():
    return [enhanced([one.says(position_mm=None) for one in stack(family="radiograph")])]


@defect({}, {Reason.UNSUPPORTED_MULTIFRAME: 1})
def object_without_frames():
    return [stack(1)[0].file(frames=())]
