import io
import struct

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence

from hilum.client.intake.headers.multiframe import frames_of, regions_of
from hilum.client.intake.instance import MAX_FRAMES, Region, Window
from hilum.client.intake.reasons import Reason, Skip


def item(**attributes):
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def sequence(**attributes):
    return Sequence([item(**attributes)])


def groups(k):
    return item(
        PlanePositionSequence=sequence(ImagePositionPatient=[1.0, 2.0, 3.0 * k]),
        PixelValueTransformationSequence=sequence(RescaleSlope=1.0 + k, RescaleIntercept=-k),
        FrameVOILUTSequence=sequence(WindowCenter=40 + k, WindowWidth=400),
        FrameContentSequence=sequence(
            StackID="A",
            InStackPositionNumber=k + 1,
            TemporalPositionIndex=2,
            FrameAcquisitionNumber=5,
            FrameAcquisitionDateTime="20200102101112.5+0100",
        ),
        MREchoSequence=sequence(EffectiveEchoTime=4.5),
        MRDiffusionSequence=sequence(
            DiffusionBValue=1000.0,
            DiffusionGradientDirectionSequence=sequence(DiffusionGradientOrientation=[0.0, 0.6, 0.8]),
        ),
        MRImageFrameTypeSequence=sequence(
            FrameType=["ORIGINAL", "PRIMARY", "M"], ComplexImageComponent="MAGNITUDE"
        ),
    )


def enhanced(frames=3, **attributes):
    return item(
        NumberOfFrames=frames,
        Manufacturer="ACME",
        SharedFunctionalGroupsSequence=sequence(
            PixelMeasuresSequence=sequence(PixelSpacing=[0.7, 0.8], SliceThickness=2.5),
            PlaneOrientationSequence=sequence(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            MRTimingAndRelatedParametersSequence=sequence(RepetitionTime=2000.0, FlipAngle=90.0),
        ),
        PerFrameFunctionalGroupsSequence=Sequence([groups(k) for k in range(frames)]),
        **attributes,
    )


def test_own_and_shared_groups_make_a_frame():
    frame = frames_of(enhanced(), "mr")[2]
    assert (frame.index, frame.spacing_mm, frame.thickness_mm) == (2, (0.7, 0.8), 2.5)
    assert (frame.position_mm, frame.orientation) == ((1.0, 2.0, 6.0), (1, 0, 0, 0, 1, 0))
    assert (frame.slope, frame.intercept, frame.window) == (3.0, -2.0, Window(42, 400, "LINEAR"))
    contrast = frame.contrast
    assert (contrast.vendor, contrast.component, contrast.image_type) == (
        "ACME",
        "M",
        ("ORIGINAL", "PRIMARY", "M"),
    )
    assert (contrast.echo_time_ms, contrast.repetition_time_ms, contrast.flip_angle_deg) == (
        4.5,
        2000.0,
        90.0,
    )
    assert (contrast.b_value, contrast.gradient) == (1000.0, (0.0, 0.6, 0.8))
    assert (contrast.stack, contrast.temporal_position, contrast.acquisition_number) == ("A", 2.0, 5)
    assert contrast.acquisition_time_s == 10 * 3600 + 11 * 60 + 12.5


def test_a_frames_own_group_counts_before_the_shared_one():
    dataset = enhanced()
    dataset.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = sequence(PixelSpacing=[2, 3])
    assert [frame.spacing_mm for frame in frames_of(dataset, "mr")] == [(0.7, 0.8), (2.0, 3.0), (0.7, 0.8)]


def test_an_ultrasound_volume_has_groups_of_its_own():
    dataset = enhanced()
    for k, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        del own.PlanePositionSequence
        own.PlanePositionVolumeSequence = sequence(ImagePositionVolume=[0.0, 0.0, float(k)])
    shared = dataset.SharedFunctionalGroupsSequence[0]
    del shared.PlaneOrientationSequence
    shared.PlaneOrientationVolumeSequence = sequence(ImageOrientationVolume=[1, 0, 0, 0, 1, 0])
    frame = frames_of(dataset, "mr")[2]
    assert (frame.position_mm, frame.orientation) == ((0.0, 0.0, 2.0), (1, 0, 0, 0, 1, 0))


def test_a_legacy_converted_object_keeps_its_contrast_in_unassigned_attributes():
    dataset = enhanced()
    for k, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        own.UnassignedPerFrameConvertedAttributesSequence = sequence(
            InstanceNumber=k + 7, TriggerTime=30.0 * k
        )
    contrast = frames_of(dataset, "mr")[2].contrast
    assert (contrast.instance_number, contrast.trigger_time_ms) == (9, 60.0)


def mr_frames(dataset):
    return frames_of(dataset, "mr")


@pytest.mark.parametrize(
    "lost",
    [
        "PlanePositionSequence",
        "PixelValueTransformationSequence",
        "FrameVOILUTSequence",
        "FrameContentSequence",
        "MREchoSequence",
        "MRDiffusionSequence",
        "MRImageFrameTypeSequence",
    ],
)
def test_a_missing_group_leaves_its_facts_unknown(lost):
    dataset = enhanced()
    for own in dataset.PerFrameFunctionalGroupsSequence:
        delattr(own, lost)
    frame = frames_of(dataset, "mr")[0]
    unknown = {
        "PlanePositionSequence": frame.position_mm is None,
        "PixelValueTransformationSequence": (frame.slope, frame.intercept) == (1.0, 0.0),
        "FrameVOILUTSequence": frame.window is None,
        "FrameContentSequence": frame.contrast.temporal_position is None,
        "MREchoSequence": frame.contrast.echo_time_ms is None,
        "MRDiffusionSequence": frame.contrast.b_value is None,
        "MRImageFrameTypeSequence": frame.contrast.image_type == (),
    }
    assert unknown[lost]


def test_an_empty_group_is_as_good_as_none():
    dataset = enhanced()
    dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence = Sequence([])
    assert frames_of(dataset, "mr")[0].position_mm is None


def test_a_cine_has_frames_without_a_place():
    frames = frames_of(item(NumberOfFrames=4, PixelSpacing=[0.3, 0.3]), "mr")
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert {(frame.position_mm, frame.spacing_mm) for frame in frames} == {(None, (0.3, 0.3))}


def change(edit):
    dataset = enhanced()
    edit(dataset, dataset.PerFrameFunctionalGroupsSequence[1])
    return dataset


@pytest.mark.parametrize(
    "edit",
    [
        lambda whole, frame: setattr(whole, "NumberOfFrames", 4),
        lambda whole, frame: setattr(whole, "NumberOfFrames", 2),
        lambda whole, frame: setattr(whole, "NumberOfFrames", -1),
        lambda whole, frame: delattr(whole, "PerFrameFunctionalGroupsSequence"),
        lambda whole, frame: setattr(frame.PlanePositionSequence[0], "ImagePositionPatient", [1.0, 2.0]),
        lambda whole, frame: setattr(
            frame.PlanePositionSequence[0], "ImagePositionPatient", [1.0, 2.0, 3.0, 4.0]
        ),
        lambda whole, frame: setattr(frame.PixelValueTransformationSequence[0], "RescaleSlope", 0.0),
        lambda whole, frame: setattr(frame.MREchoSequence[0], "EffectiveEchoTime", float("nan")),
        lambda whole, frame: frame.add_new(0x00209113, "LO", "no sequence"),
        lambda whole, frame: whole.SharedFunctionalGroupsSequence.append(Dataset()),
    ],
)
def test_groups_that_contradict_themselves_are_refused(edit):
    with pytest.raises(Skip, match=Reason.UNSUPPORTED_MULTIFRAME):
        frames_of(change(edit), "mr")


@pytest.mark.parametrize("spacing", [[0.0, 1.0], [0.5], [-1.0, 1.0], [0.5, 0.5, 0.5], [float("nan"), 1.0]])
def test_a_spacing_that_can_not_be_used_is_none_of_that_frame(spacing):
    edited = change(
        lambda _whole, frame: setattr(frame, "PixelMeasuresSequence", sequence(PixelSpacing=spacing))
    )
    assert [frame.spacing_mm for frame in frames_of(edited, "mr")] == [(0.7, 0.8), None, (0.7, 0.8)]


def test_more_frames_than_any_object_holds_are_refused_before_they_are_made():
    with pytest.raises(Skip, match=Reason.IMPLAUSIBLE_SIZE):
        frames_of(item(NumberOfFrames=MAX_FRAMES + 1), "mr")


def sequence_bytes(tag, content):
    """An explicit little-endian sequence of one item, both of stated length."""
    inner = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    return struct.pack("<HH2s2xI", tag >> 16, tag & 0xFFFF, b"SQ", len(inner)) + inner


@pytest.mark.parametrize(
    ("outer", "read"), [(0x52009230, mr_frames), (0x00209113, mr_frames), (0x00186011, regions_of)]
)
def test_three_hundred_nested_sequences_end_in_a_counted_reason(outer, read):
    content = b""
    for _ in range(300):
        content = sequence_bytes(outer, content)
    dataset = read_dataset(io.BytesIO(content), is_implicit_VR=False, is_little_endian=True)
    dataset.NumberOfFrames = 2
    if outer == 0x00209113:
        dataset.PerFrameFunctionalGroupsSequence = Sequence([dataset, dataset])
        assert [frame.position_mm for frame in read(dataset)] == [None, None]
    else:
        with pytest.raises(Skip):
            read(dataset)


class Bottomless(Dataset):
    """Stands for a data set whose parsing recurses for ever."""

    def get(self, key, default=None):
        raise RecursionError


@pytest.mark.parametrize(
    ("read", "reason"), [(mr_frames, Reason.UNSUPPORTED_MULTIFRAME), (regions_of, Reason.DAMAGED_HEADER)]
)
def test_a_recursion_error_is_a_counted_reason(read, reason):
    with pytest.raises(Skip, match=reason):
        read(Bottomless())


def region(**changes):
    return item(
        **{
            "RegionLocationMinX0": 10,
            "RegionLocationMinY0": 20,
            "RegionLocationMaxX1": 109,
            "RegionLocationMaxY1": 219,
            "PhysicalUnitsXDirection": 3,
            "PhysicalUnitsYDirection": 3,
            "RegionSpatialFormat": 1,
            "PhysicalDeltaX": 0.02,
            "PhysicalDeltaY": -0.05,
            **changes,
        }
    )


def test_a_calibrated_region_has_its_corners_and_its_spacing_in_millimetres():
    found = regions_of(item(SequenceOfUltrasoundRegions=Sequence([region()])))
    assert found == (Region(20, 10, 219, 109, (0.5, 0.2)),)


@pytest.mark.parametrize(
    "changes",
    [
        {"PhysicalUnitsXDirection": 4},
        {"RegionSpatialFormat": 2},
        {"PhysicalDeltaX": 0.0},
        {"PhysicalDeltaY": None},
    ],
)
def test_a_region_that_is_no_plane_of_space_has_no_spacing(changes):
    found = regions_of(item(SequenceOfUltrasoundRegions=Sequence([region(**changes)])))
    assert found[0].spacing_mm is None


@pytest.mark.parametrize(
    "changes",
    [{"RegionLocationMinX0": 200}, {"RegionLocationMaxY1": 1_000_000}, {"RegionLocationMinY0": None}],
)
def test_an_impossible_region_is_refused(changes):
    with pytest.raises(Skip, match=Reason.DAMAGED_HEADER):
        regions_of(item(SequenceOfUltrasoundRegions=Sequence([region(**changes)])))


def test_an_image_without_regions_has_none():
    assert regions_of(Dataset()) == ()


P = "PixelValueTransformationSequence"


def rescaled(own, shared, family="ct", **top):
    """What three places say of the slope, the intercept and their type, for the one frame."""
    frame = item(**({P: Sequence([item(**own)])} if own is not None else {}))
    common = item(**({P: Sequence([item(**shared)])} if shared is not None else {}))
    whole = item(
        NumberOfFrames=1,
        SharedFunctionalGroupsSequence=Sequence([common]),
        PerFrameFunctionalGroupsSequence=Sequence([frame]),
        **top,
    )
    [found] = frames_of(whole, family)
    return found.slope, found.intercept, found.quantity


BOTH = {"RescaleSlope": 3.0, "RescaleIntercept": -1000.0}


@pytest.mark.parametrize(
    ("own", "shared", "top", "quantity"),
    [
        ({}, {**BOTH, "RescaleType": "HU"}, {}, "HU"),
        ({"RescaleType": "HU"}, BOTH, {}, "HU"),
        ({"RescaleType": "MGML"}, BOTH, {}, "MGML"),
        (None, BOTH, {"RescaleType": "MGML"}, "MGML"),
        ({}, {"RescaleType": "HU"}, BOTH, "HU"),
        (None, BOTH, {"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "ELECTRON_DENSITY"]}, ""),
        (BOTH, {"RescaleSlope": 9.0, "RescaleIntercept": 9.0}, {}, "HU"),
    ],
)
def test_a_slope_is_read_where_it_stands_and_its_type_too(own, shared, top, quantity):
    assert rescaled(own, shared, **top) == (3.0, -1000.0, quantity)


@pytest.mark.parametrize("family", ["ct", "mr", "pet"])
def test_a_slope_here_and_an_intercept_there_refuse_the_file(family):
    with pytest.raises(Skip) as skip:
        rescaled({"RescaleSlope": 3.0}, {"RescaleIntercept": -1000.0}, family)
    assert skip.value.reason == Reason.UNSUPPORTED_MULTIFRAME


@pytest.mark.parametrize("where", ["own", "shared"])
def test_a_slope_that_a_converted_object_keeps_aside_is_applied(where):
    names = {
        "own": "UnassignedPerFrameConvertedAttributesSequence",
        "shared": "UnassignedSharedConvertedAttributesSequence",
    }
    aside = item(**{names[where]: Sequence([item(**BOTH)])})
    whole = item(
        NumberOfFrames=1,
        SharedFunctionalGroupsSequence=Sequence([aside if where == "shared" else item()]),
        PerFrameFunctionalGroupsSequence=Sequence([aside if where == "own" else item()]),
    )
    [found] = frames_of(whole, "mr")
    assert (found.slope, found.intercept) == (3.0, -1000.0)


def test_a_place_in_long_text_is_read_and_a_window_of_no_numbers_is_none():
    whole = enhanced(1)
    own = whole.PerFrameFunctionalGroupsSequence[0]
    own.PlanePositionSequence[0].add_new(0x00200032, "UT", "1\\2\\3.5")
    own.FrameVOILUTSequence[0].add_new(0x00281050, "UT", "40,5")
    [found] = frames_of(whole, "mr")
    assert (found.position_mm, found.window) == ((1.0, 2.0, 3.5), None)
