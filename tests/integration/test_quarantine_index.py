"""Ultrasound, captures and angiograms on their way through an index: held, released, dropped, cropped or taken."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from hilum.client.intake.indexing.index import index_archive
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.workspace import Workspace
from hilum.common.progress import NullProgress
from pixel_files import write_native

STORAGE = "1.2.840.10008.5.1.4.1.1."
SUSPECT = {"ultrasound": STORAGE + "6.1", "secondary": STORAGE + "7", "angiogram": STORAGE + "12.1"}
HELD = "quarantined_possible_text"


def plain(seed=0):
    rows, columns = np.mgrid[:160, :240]
    return (60 + seed + 0.4 * rows + 0.3 * columns).astype(np.uint8)


def with_text(place=(5, 3), seed=0):
    image = Image.fromarray(plain(seed))
    ImageDraw.Draw(image).text(place, "DOE^JANE", font=ImageFont.load_default(size=18), fill=255)
    return np.asarray(image).copy()


def region(first_row, first_column, last_row, last_column, spacing_cm=0.03):
    one = Dataset()
    one.RegionSpatialFormat, one.RegionDataType, one.RegionFlags = 1, 1, 0
    one.RegionLocationMinX0, one.RegionLocationMinY0 = first_column, first_row
    one.RegionLocationMaxX1, one.RegionLocationMaxY1 = last_column, last_row
    one.PhysicalUnitsXDirection = one.PhysicalUnitsYDirection = 3
    one.PhysicalDeltaX, one.PhysicalDeltaY = spacing_cm, 2 * spacing_cm
    return one


@pytest.fixture
def site(tmp_path):
    """Index the archive; look at what there is."""

    class Site:
        workspace = Workspace(tmp_path / "hilum-home" / "site")
        archive = tmp_path / "archive"

        def index(self):
            return index_archive(self.archive, self.workspace, NullProgress())

        def items(self):
            catalogue = Catalogue(self.workspace.catalogue)
            try:
                return catalogue.items()
            finally:
                catalogue.close()

        def array(self, item):
            return ArrayCache(self.workspace.cache).get(item.content_sha256)

        def cached(self):
            return len(list(self.workspace.cache.rglob("*.npy")))

        def decide(self, action, crop=None):
            catalogue = Catalogue(self.workspace.catalogue)
            quarantine = Quarantine(self.workspace, catalogue)
            try:
                held = quarantine.list_held()
                if action == "release":
                    return quarantine.release(held, crop)
                return quarantine.drop(held)
            finally:
                catalogue.close()

    return Site()


@pytest.mark.parametrize("family", SUSPECT)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_an_image_with_text_waits_outside_the_cache_and_one_without_is_taken(family, syntax, dicom, site):
    # It says of itself that nothing is burned in.
    said = {"sop_class": SUSPECT[family], "syntax": syntax, "BurnedInAnnotation": "NO"}
    dicom(site.archive / "text.dcm", with_text(), **said)
    dicom(site.archive / "plain.dcm", plain(), **said)
    counts = site.index().counts
    assert (counts.instances, counts.skipped) == (1, {HELD: 1})
    (item,) = site.items()
    assert (item.family, item.kind, item.shape) == (family, "image", (160, 240))
    assert site.cached() == 1


def test_released_through_the_command_line_it_comes_in_and_stays_in(dicom, site, run_hilum):
    dicom(site.archive / "text.dcm", with_text(), sop_class=SUSPECT["ultrasound"])
    assert run_hilum("site", "index", site.archive).returncode == 3  # nothing usable yet
    assert site.cached() == 0
    assert run_hilum("site", "quarantine", "release", "--all").returncode == 0
    (item,) = site.items()
    assert item.family == "ultrasound"
    assert site.array(item).shape == (160, 240)
    again = site.index()
    assert (again.decoded, again.counts.instances, again.counts.skipped) == (0, 1, {})
    (site.archive / "text.dcm").touch()  # looks new, so it is read again
    later = site.index()
    assert (later.decoded, later.counts.instances, later.counts.skipped) == (1, 1, {})
    assert site.items() == [item]


def test_a_cropped_release_is_cropped_again_by_a_later_index(dicom, site):
    dicom(site.archive / "text.dcm", with_text(), sop_class=SUSPECT["angiogram"])
    site.index()
    assert site.decide("release", crop=(40, 20, 140, 220)) == 1
    (item,) = site.items()
    assert item.shape == (100, 200)
    (site.archive / "text.dcm").touch()
    site.index()
    assert site.items() == [item]


def test_dropped_it_stays_out_whatever_is_indexed_later(dicom, site):
    dicom(site.archive / "text.dcm", with_text(), sop_class=SUSPECT["secondary"])
    dicom(site.archive / "plain.dcm", plain(), sop_class=SUSPECT["secondary"])
    site.index()
    assert site.decide("drop") == 1
    assert site.index().counts.skipped == {"dropped_at_site": 1}
    (site.archive / "text.dcm").touch()
    assert site.index().counts.skipped == {"dropped_at_site": 1}
    assert site.cached() == 1
    assert not list((site.workspace.folder / "quarantine").glob("*.npy"))


def test_other_pixels_under_a_released_instance_are_held_anew(dicom, site):
    uid = generate_uid()
    dicom(site.archive / "a.dcm", with_text(), sop_class=SUSPECT["ultrasound"], SOPInstanceUID=uid)
    site.index()
    site.decide("release")
    dicom(site.archive / "a.dcm", with_text((60, 90)), sop_class=SUSPECT["ultrasound"], SOPInstanceUID=uid)
    assert site.index().counts.skipped == {HELD: 1}
    assert site.items() == []
    assert site.cached() == 0


def test_an_ultrasound_is_cropped_to_its_region_and_has_the_regions_spacing(dicom, site):
    dicom(
        site.archive / "us.dcm",
        with_text(),
        sop_class=SUSPECT["ultrasound"],
        PixelSpacing=[9.0, 9.0],  # of what, nobody knows: the region's is the calibrated one
        SequenceOfUltrasoundRegions=Sequence(
            [region(40, 20, 139, 219), region(145, 0, 159, 99, spacing_cm=0.5)]
        ),
    )
    counts = site.index().counts
    assert (counts.instances, counts.skipped) == (1, {})
    (item,) = site.items()
    assert item.shape == (100, 200)
    assert item.spacing_mm == pytest.approx((0.6, 0.3))
    shown = np.asarray(site.array(item), float)
    expected = plain()[40:140, 20:220].astype(float)
    assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.999


def test_text_inside_the_region_holds_the_whole(dicom, site):
    dicom(
        site.archive / "us.dcm",
        with_text((80, 60)),
        sop_class=SUSPECT["ultrasound"],
        SequenceOfUltrasoundRegions=Sequence([region(40, 20, 139, 219)]),
    )
    assert site.index().counts.skipped == {HELD: 1}


def colours(shown, palette):
    """Files of the same picture: in RGB, or as indices into a palette."""
    if not palette:
        return np.stack([shown, shown // 2, 255 - shown], axis=-1), {"PhotometricInterpretation": "RGB"}
    ramp = (np.arange(256, dtype="<u2") * 257).tobytes()
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    tables = {f"{name}Descriptor": [256, 0, 16] for name in names} | {f"{name}Data": ramp for name in names}
    return shown, {"PhotometricInterpretation": "PALETTE COLOR", **tables}


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_text_is_found_in_colours_in_palettes_and_in_clips(frames, palette, text, site):
    site.archive.mkdir()
    shown = np.stack([plain(seed=k) for k in range(frames)])
    if text:
        shown[-1] = with_text()
    made = [colours(one, palette) for one in shown]
    pixels, attributes = np.stack([one for one, _said in made]), made[0][1]
    sop_class = STORAGE + ("6.1" if frames == 1 else "3.1")
    write_native(site.archive / "us.dcm", pixels, ExplicitVRLittleEndian, SOPClassUID=sop_class, **attributes)
    counts = site.index().counts
    if text:
        assert (counts.instances, counts.skipped) == (0, {HELD: 1})
        assert site.cached() == 0
        return
    (item,) = site.items()
    assert item.kind == ("image" if frames == 1 else "cine")
    assert item.shape == ((160, 240, 3) if frames == 1 else (frames, 160, 240, 3))
