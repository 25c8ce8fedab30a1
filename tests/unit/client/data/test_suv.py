"""PET in SUV from DICOM to the packed array: one SUV image gives one array whatever weight and dose were, and nothing is guessed."""

import numpy as np
import pytest

from hilum.client.data.prepared import holding_of, prepare
from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.cache import ArrayCache
from hilum.client.state.workspace import Workspace
from hilum.common.config.data import DataSection
from hilum.common.errors import DataError
from hilum.common.preparation.encoder_input import encoder_input
from hilum.common.preparation.pieces import Geometry
from hilum.common.progress import NullProgress
from pet_files import DOSE_BQ, F18_S, PET, WEIGHT_KG, add_philips, injection, pet

OWN_MM = {"modality": "pet", "dims": 3, "image_size": 8, "spacing_mm": [2.0, 4.0, 4.0]}
IN_SUV = DataSection(**OWN_MM, intensity="suv")
PERCENTILES = DataSection(**OWN_MM)
SHAPE = (12, 16, 16)


def uptake(seed=0):
    """(D, H, W) in SUV: a body of about 1 in air, with a lesion of 8 and a bladder of 30."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, edge) for edge in SHAPE), indexing="ij")
    suv = np.where(z**2 + y**2 + x**2 < 0.7, rng.uniform(0.5, 2, SHAPE), 0.0)
    suv[3:6, 6:9, 6:9] = 8
    suv[8:10, 7:9, 7:9] = 30
    return suv


@pytest.fixture
def add(write_series, tmp_path):
    """Write one patient's series of an uptake as a scanner stores it: activity in whole numbers and a slope a slice."""

    def write(name, suv, *, weight_kg=WEIGHT_KG, dose_bq=DOSE_BQ, philips=None, **changes):
        bq_per_ml = suv * dose_bq * 0.5 ** (3600 / F18_S) / (weight_kg * 1000)
        values = suv if changes.get("Units") == "GML" else bq_per_ml
        slope = values.max() / 60_000
        stored = np.rint(values / slope).astype(np.uint16)
        attributes = pet(injection(RadionuclideTotalDose=dose_bq), PatientWeight=weight_kg) | changes
        write_series(
            tmp_path / "dicom" / name,
            stored,
            sop_class=PET,
            spacing_mm=(2.0, 4.0, 4.0),
            **attributes | {"RescaleSlope": f"{slope:.10g}", "PatientID": name},
        )
        for path in (tmp_path / "dicom" / name).glob("*.dcm") if philips else ():
            add_philips(path, suv=philips)

    return write


@pytest.fixture
def index(tmp_path):
    def run():
        workspace = Workspace(tmp_path / "state")
        index_archive(tmp_path / "dicom", workspace, NullProgress())
        return workspace

    return run


def packed(workspace, data):
    """What is packed, by the item's key."""
    prepared = prepare(workspace, data)
    volumes = (np.asarray(file.values()).astype(np.int64) for file in prepared.images.files)
    return {item.item_key: values for item, values in zip(prepared.items, volumes, strict=True)}


def test_one_uptake_of_two_weights_and_doses_gives_one_array(add, index):
    add("light", uptake(), weight_kg=48.0, dose_bq=180e6)
    add("heavy", uptake(), weight_kg=113.0, dose_bq=520e6)
    workspace = index()
    one, other = packed(workspace, IN_SUV).values()
    np.testing.assert_allclose(one, other, atol=1 / 30_000 * 65_535)  # what storing in whole numbers leaves
    raw_one, raw_other = (
        np.asarray(ArrayCache(workspace.cache).get(item.content_sha256))
        for item in prepare(workspace, IN_SUV).items
    )
    assert not np.allclose(raw_one, raw_other, rtol=0.05), "the cache holds them as the scanner measured them"


def test_packed_values_are_suv_in_the_window(add, index):
    add("a", uptake())
    add("b", uptake(1), Units="GML")
    add("c", uptake(2), Units="CNTS", philips="0.0001972")
    workspace = index()
    by_window = {}
    for low, high in ((0, 10), (2, 20)):
        data = (
            IN_SUV
            if (low, high) == (0, 10)
            else DataSection(**OWN_MM, intensity="suv", window_suv=[low, high])
        )
        by_window[high] = packed(workspace, data)
        for item in prepare(workspace, data).items:
            values = np.asarray(ArrayCache(workspace.cache).get(item.content_sha256), np.float64) * item.suv
            expected = ((values - low) / (high - low)).clip(0, 1) * 65_535
            np.testing.assert_allclose(by_window[high][item.item_key], expected, atol=1)
    factors = sorted(item.suv for item in prepare(workspace, IN_SUV).items)
    assert factors == pytest.approx([0.0001972, WEIGHT_KG * 1000 / (DOSE_BQ * 0.5 ** (3600 / F18_S)), 1.0])
    bladder = max(by_window[10].values(), key=np.ptp)
    assert bladder.max() == 65_535
    assert bladder[3:6, 6:9, 6:9].mean() == pytest.approx(0.8 * 65_535, rel=1e-3)


def test_patches_are_drawn_where_there_is_uptake_however_bright_one_spot_is(add, index):
    suv = np.zeros((16, 32, 32))
    suv[:8, :16, :16] = 0.5
    suv[:2, :2, :2] = 90
    add("a", suv)
    file = prepare(index(), IN_SUV).images.files[0]
    assert Geometry.of(IN_SUV).cell == (8, 8, 8)
    shown = np.zeros((2, 4, 4), bool)
    shown.ravel()[file.cells()] = True
    expected = np.zeros((2, 4, 4), bool)
    expected[:1, :2, :2] = True
    np.testing.assert_array_equal(shown, expected)


def test_slices_of_volumes_are_taken_in_suv_too(add, index):
    add("light", uptake(), weight_kg=48.0, dose_bq=180e6)
    add("heavy", uptake(), weight_kg=113.0, dose_bq=520e6)
    slices = DataSection(modality="pet", cut="slices", image_size=16, intensity="suv")
    one, other = packed(index(), slices).values()
    np.testing.assert_allclose(one, other, atol=3)
    assert one.max() == 65_535


def test_an_encoder_takes_what_training_has_seen(add, index):
    add("a", uptake())
    workspace = index()
    (item,) = prepare(workspace, IN_SUV).items
    suv = np.asarray(ArrayCache(workspace.cache).get(item.content_sha256), np.float64) * item.suv
    given = encoder_input(suv, IN_SUV, item.spacing_mm)
    assert float(given.max()) == 1.0
    expected = uptake().clip(0, 10) / 10
    assert float(given.mean()) == pytest.approx(expected.mean(), abs=0.1)


def test_volumes_without_suv_are_left_out_and_counted_once_by_reason(add, index, caplog):
    add("a", uptake())
    add("b", uptake(1), PatientWeight=None)
    add("c", uptake(2), Units="PCNT")
    workspace = index()
    for ask in (holding_of, prepare, prepare):
        ask(workspace, IN_SUV)
    assert [item.suv for item in prepare(workspace, IN_SUV).items] == [
        pytest.approx(WEIGHT_KG * 1000 / (DOSE_BQ * 0.5 ** (3600 / F18_S)))
    ]
    assert holding_of(workspace, IN_SUV).images == 1
    line = (
        'data.intensity = "suv": 2 of the 3 PET volumes have no SUV and are left out (1: the values are neither Bq/ml, nor g/ml, '
        "nor counts with the private factor of Philips; 1: the weight is missing, or not from 0.5 to 500 kg)"
    )
    assert [record.getMessage() for record in caplog.records] == [line]
    assert len(prepare(workspace, PERCENTILES).items) == 3, "a study without it takes all, as ever"


def test_a_site_where_no_volume_has_suv_is_refused(add, index):
    add("b", uptake(1), PatientWeight=None)
    workspace = index()
    for ask in (prepare, holding_of):
        with pytest.raises(DataError) as refused:
            ask(workspace, IN_SUV)
        assert str(refused.value) == (
            'data.intensity = "suv": 1 of the 1 PET volumes have no SUV (1: the weight is missing, or not from 0.5 to 500 kg); '
            "index an archive of volumes that have one, or leave data.intensity out of the study"
        )


def test_another_weight_for_the_same_voxels_is_packed_anew(add, index, tmp_path):
    add("a", uptake())
    workspace = index()
    (before,) = packed(workspace, IN_SUV).values()
    for path in (tmp_path / "dicom" / "a").glob("*.dcm"):
        path.unlink()
    add("a", uptake(), PatientWeight=WEIGHT_KG / 2)
    index()
    (after,) = packed(workspace, IN_SUV).values()
    inside = (before > 0) & (before < 65_535)
    np.testing.assert_allclose(after[inside], before[inside] / 2, atol=1)


def test_a_study_without_it_packs_the_same_numbers_whatever_weight_and_dose_are(add, index):
    add("a", uptake())
    workspace = index()
    (item,) = prepare(workspace, PERCENTILES).items
    raw = np.asarray(ArrayCache(workspace.cache).get(item.content_sha256), np.float64)
    low, high = np.percentile(raw.astype(np.float32), (0.5, 99.5))
    (values,) = packed(workspace, PERCENTILES).values()
    np.testing.assert_allclose(values, ((raw - low) / (high - low)).clip(0, 1) * 65_535, atol=1)
