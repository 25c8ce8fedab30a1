"""What of each image a study takes: what may be written, what follows from it, and that old studies stay what they were."""

import pytest

from hilum.common.config import parse_study, study_to_toml
from hilum.common.config.data import DataSection
from hilum.common.config.resume import as_of_today, differences, lasting
from hilum.common.errors import ConfigError
from studies import study_table

CT = {"modality": "ct", "dims": 3, "image_size": 32}


def study(**data):
    return parse_study(study_table(data={"modality": "ct", "dims": 3, "image_size": 32, **data}))


def test_volumes_are_taken_in_patches_of_a_millimetre_unless_a_study_says_otherwise():
    data = DataSection(**CT)
    assert (data.cut, data.spacing_mm, data.per_volume) == ("patches", (1.0, 1.0, 1.0), 4)
    whole = DataSection(**CT, cut="whole")
    assert (whole.spacing_mm, whole.per_volume) == (None, None)
    images = DataSection(modality="radiograph")
    assert (images.cut, images.spacing_mm, images.per_volume) == ("whole", None, None)
    assert DataSection(modality="ct", cut="slices").per_volume == 4


def test_sizes_and_spacings_are_one_number_or_three():
    data = DataSection(**{**CT, "image_size": [16, 32, 48]}, spacing_mm=[3, 1, 0.5])
    assert data.view_size == (16, 32, 48)
    assert data.block_size == (20, 40, 60)
    assert data.spacing_mm == (3.0, 1.0, 0.5)
    assert DataSection(**CT, spacing_mm=2).spacing_mm == (2.0, 2.0, 2.0)
    assert DataSection(modality="radiograph", image_size=40).view_size == (40, 40)


def test_a_study_reads_back_as_it_was_written(tmp_path):
    import tomllib

    one = study(image_size=[16, 32, 48], spacing_mm=[3, 1, 1], window_hu=[-160, 240])
    assert parse_study(tomllib.loads(study_to_toml(one))) == one
    assert parse_study(one.model_dump(mode="json")) == one


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"image_size": 4}, "data.image_size = 4: expected a whole number from 8 to 1024, or of patches three"),
        ({"image_size": [16, 16]}, "data.image_size = [16, 16]: expected a whole number"),
        ({"image_size": [16, 16, 2000]}, "[16, 16, 2000]: expected a whole number"),
        ({"image_size": "64"}, "data.image_size = '64': expected a whole number"),
        ({"image_size": [16, 16, 12]}, "data.image_size = [16, 16, 12] is not a multiple of encoder.patch_size = 8"),
        ({"cut": "whole", "image_size": [16, 16, 16]}, 'is of patches, and data.cut = "whole" fills one edge'),
        ({"spacing_mm": 0.01}, "`data.spacing_mm.0 = 0.01`: input should be greater than or equal to 0.05"),
        ({"spacing_mm": [1, 1]}, "data.spacing_mm = [1, 1]: expected millimetres, one number or three"),
        ({"spacing_mm": True}, "data.spacing_mm = True: expected millimetres"),
        ({"spacing_mm": 1, "cut": "whole"}, "data.spacing_mm is of patches"),
        ({"per_volume": 0}, "`data.per_volume = 0`: input should be greater than or equal to 1"),
        ({"spacing_mm": None}, "needs data.per_volume, and of patches data.spacing_mm"),
        ({"per_volume": None}, "needs data.per_volume, and of patches data.spacing_mm"),
        ({"per_volume": 2, "cut": "whole"}, "data.per_volume counts patches or slices"),
        ({"dims": 2, "cut": "patches"}, 'write data.dims = 3, or data.cut = "slices"'),
        ({"cut": "slices"}, 'write data.dims = 2, or data.cut = "patches"'),
        ({"dims": 2, "modality": "radiograph", "cut": "slices"}, "has images alone; leave it out"),
        ({"window_hu": [240, -160]}, "data.window_hu = [240.0, -160.0]: expected the lower value first"),
        ({"window_hu": [240]}, "`data.window_hu = [240]`: tuple should have at least 2 items"),
        ({"modality": "mr", "window_hu": [0, 80]}, "data.window_hu is of CT"),
        ({"intensity": "zscore"}, 'those of data.modality = "ct" have one; leave it out'),
        ({"modality": "mr", "intensity": "suv"}, 'data.intensity = "suv" is of PET, and data.modality = "mr"; leave it out'),
        ({"intensity": "suv"}, 'those of data.modality = "ct" have one; leave it out'),
        ({"modality": "pet", "intensity": "suv", "cut": "whole"}, 'in patches or slices; write data.cut = "patches"'),
        ({"modality": "pet", "intensity": "suv", "dims": 2}, 'write data.dims = 3, or data.cut = "slices"'),
        ({"modality": "pet", "window_suv": [0, 10]}, 'write data.intensity = "suv" beside it, or leave it out'),
        ({"modality": "pet", "intensity": "suv", "window_suv": [10, 10]}, "data.window_suv = [10.0, 10.0]: expected the lower value"),
        ({"modality": "pet", "intensity": "suv", "window_suv": [-1, 10]}, "`data.window_suv.0 = -1`: input should be greater"),
        ({"modality": "radiograph"}, "data.dims = 3 asks for volumes"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_told_in_one_line(data, problem):
    with pytest.raises(ConfigError) as caught:
        study(**data)
    assert problem in caught.value.problems[0]
    assert all("default factory" not in one for one in caught.value.problems)


def test_facts_have_the_studys_window_and_scale():
    assert DataSection(**CT).facts.values == (-1000.0, 1000.0)
    brain = DataSection(**CT, window_hu=[0, 80]).facts
    assert brain.values == (0.0, 80.0)
    assert "0 is 0 and 80 is 1" in brain.intensity
    assert brain.shows_from == -900.0
    mr = DataSection(modality="mr", dims=3, intensity="zscore").facts
    assert (mr.values, mr.scale) == (None, "zscore")
    assert "4 deviations below the mean are 0" in mr.intensity


def test_of_pet_in_suv_1_is_the_mean_and_the_deviation_of_what_an_encoder_sees():
    pet = {"modality": "pet", "dims": 3, "intensity": "suv"}
    usual = DataSection(**pet).facts
    assert (usual.values, usual.mean, usual.deviation, usual.shows_from) == ((0.0, 10.0), 0.1, 0.1, 0.2)
    assert usual.intensity == "standardized uptake by body weight (SUVbw), 0 is 0 and 10 is 1, clipped"
    assert "in SUV by body weight" in usual.expects
    liver = DataSection(**pet, window_suv=[0.5, 4.5]).facts
    assert (liver.values, liver.mean, liver.deviation) == ((0.5, 4.5), 0.125, 0.25)
    assert DataSection(**pet, window_suv=[2, 4]).facts.mean == 0.0, "what has SUV 1 is clipped"
    assert DataSection(modality="pet", dims=3).facts.values is None


BEFORE = {"modality": "mr", "dims": 3, "image_size": 32}
"""The whole section of a study of before, written out."""


def test_a_study_of_before_is_the_one_that_takes_volumes_whole():
    now = study(modality="mr", cut="whole").model_dump(mode="json")
    assert differences({**now, "data": BEFORE}, now) == []
    assert lasting(now)["data"] == BEFORE
    patches = study(modality="mr").model_dump(mode="json")
    first = differences({**now, "data": BEFORE}, patches)[0]
    assert str(first) == "data.cut was 'whole', is 'patches'"
    flat = parse_study(study_table()).model_dump(mode="json")
    assert lasting(flat)["data"] == {"modality": "radiograph", "dims": 2, "image_size": 16}


def test_an_encoder_of_before_is_read_as_it_was_made():
    assert DataSection(**as_of_today({"data": BEFORE})["data"]).cut == "whole"
    assert as_of_today({"data": {"cut": "patches"}, "encoder": {}}) == {
        "data": {"cut": "patches"},
        "encoder": {},
    }
