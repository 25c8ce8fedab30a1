"""The gallery and the status: what a site sees of itself, and nobody else."""

import base64
import io
import json
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from PIL import Image

from hilum.client.commands.status import status_json, status_lines
from hilum.client.gallery import browse
from hilum.client.gallery.browse import write_gallery
from hilum.client.gallery.status import site_status
from hilum.client.gallery.thumbnails import thumbnails
from hilum.client.state.cache import ArrayCache
from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError, RunError

GOING_UP = tuple(float(value) for value in np.diag([4.0, 1, 1, 1])[[2, 1, 0, 3]].ravel())


def item(name, array, sha="", *, kind="volume", family="mr", units="arbitrary", spacing_mm=(4.0, 1.0, 1.0)):
    affine = GOING_UP if kind == "volume" else ()
    return Item(
        name,
        kind,
        family,
        units,
        sha,
        array.shape,
        spacing_mm,
        affine,
        "",
        name,
        f"study {name}",
        f"patient {name}",
    )


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))).convert("L")).astype(int)


@pytest.fixture
def site(tmp_path):
    workspace = Workspace(tmp_path / "hilum-home" / "site")
    cache, catalogue = ArrayCache(workspace.cache), Catalogue(workspace.catalogue)
    rng = np.random.default_rng(0)
    items = []
    for n in range(5):
        volume = rng.normal(0, 1, (6, 20, 24)).astype(np.float32)
        items.append(item(f"v{n}", volume, cache.put(volume)))
        shown = rng.integers(0, 65536, (30, 40)).astype(np.uint16)
        items.append(
            item(
                f"r{n}",
                shown,
                cache.put(shown),
                kind="image",
                family="radiograph",
                units="display",
                spacing_mm=(),
            )
        )
    rows = [FileRow("a", "1", ACCEPTED), FileRow("b", "1", "localizer"), FileRow("c", "1", "not_dicom")]
    catalogue.record(rows, items)
    yield workspace
    catalogue.close()


def test_a_volume_is_shown_in_three_planes_of_one_scale_true_to_its_spacing():
    volume = np.random.default_rng(0).normal(0, 1, (25, 80, 60)).astype(np.float32)
    planes = thumbnails(volume, item("v", volume), 100)
    assert [picture.plane for picture in planes] == ["slices", "rows", "columns"]
    assert [(p.height, p.width) for p in planes] == [(80, 60), (100, 60), (100, 80)]


def test_the_head_is_on_top_where_slices_run_upwards():
    volume = np.zeros((20, 40, 40), np.float32)
    volume[15:] = 100  # the top of the patient
    _, rows, _ = thumbnails(volume, item("v", volume), 80)
    shown = pixels(rows)
    assert shown[:10].mean() > 200
    assert shown[-10:].mean() < 50


def test_a_radiograph_is_shown_as_it_is_displayed_and_a_clip_by_its_middle_frame():
    image = np.full((30, 60), 32_896, np.uint16)
    (picture,) = thumbnails(image, item("r", image, kind="image", units="display", spacing_mm=()), 60)
    assert (picture.height, picture.width) == (30, 60)
    assert abs(pixels(picture).mean() - 128) < 2
    clip = np.zeros((5, 30, 60, 3), np.uint8)
    clip[2] = 200
    (frame,) = thumbnails(clip, item("c", clip, kind="clip", units="display", spacing_mm=()), 60)
    assert abs(pixels(frame).mean() - 200) < 2


def test_the_gallery_is_for_its_owner_alone_and_loads_nothing_from_elsewhere(site, tmp_path):
    page = write_gallery(site, tmp_path / "gallery")
    assert (tmp_path / "gallery").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "gallery").iterdir())
    text = page.read_text()
    assert "://" not in text
    assert "default-src 'none'; img-src data:" in text
    assert "<script" not in text
    assert re.findall(r"src=\"((?!data:image/jpeg;base64,)[^\"]*)", text) == []
    assert re.findall(r"href=\"([^\"]*)", text) == ["index.html#mr", "index.html#radiograph"]
    assert "must not be copied" in text
    assert text.count("<img ") == 5 * 3 + 5
    assert "a scout image" in text
    assert "5 volumes" in text


def test_many_items_come_in_pages_that_lead_to_each_other(site, tmp_path, monkeypatch):
    monkeypatch.setattr(browse, "ITEMS_A_PAGE", 4)
    folder = tmp_path / "gallery"
    write_gallery(site, folder)
    pages = sorted(path.name for path in folder.glob("*.html"))
    assert pages == ["index.html", "page-2.html", "page-3.html"]
    assert sum((folder / name).read_text().count("<figure") for name in pages) == 10
    first = (folder / "index.html").read_text()
    assert 'href="page-3.html"' in first
    for name, family in re.findall(
        r"<td><a href=\"([^#]+)#([^\"]+)\">", first
    ):  # the first page that shows it
        assert f'<h2 id="{family}">' in (folder / name).read_text()
    assert 'href="index.html#mr"' in first
    assert 'href="page-2.html#radiograph"' in first


def test_a_limit_holds_for_each_family_and_is_told(site, tmp_path):
    text = write_gallery(site, tmp_path / "gallery", limit=2).read_text()
    assert text.count("<figure") == 4
    assert "4 of 10 are shown" in text


def test_only_a_gallery_is_replaced(site, tmp_path):
    folder = tmp_path / "gallery"
    write_gallery(site, folder)
    (folder / "page-9.html").write_text("of an earlier index")
    write_gallery(site, folder)
    assert not (folder / "page-9.html").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        write_gallery(site, other)
    assert (other / "thesis.txt").exists()
    with pytest.raises(DataError, match="hilum site index"):
        write_gallery(Workspace(tmp_path / "nowhere"), tmp_path / "new")


def test_a_folder_that_can_not_be_made_is_one_line(site, tmp_path, run_hilum):
    (tmp_path / "file").touch()
    done = run_hilum("site", "browse", "--out", tmp_path / "file" / "inside")
    assert (done.returncode, done.stdout) == (RunError.exit_code, "")
    assert done.stderr.count("\n") == 1
    assert "can't be written" in done.stderr


def test_browse_prints_where_the_page_lies(site, run_hilum):
    page = json.loads(run_hilum("site", "browse", "--json").stdout)["page"]
    assert page.endswith("site/gallery/index.html")
    assert page in run_hilum("site", "browse", "--limit", 1).stdout


def test_status_tells_families_shapes_spacing_reasons_and_sizes(site, run_hilum):
    status = json.loads(run_hilum("site", "status", "--json").stdout)
    assert status["files"] == status["instances"] + sum(status["skipped"].values())
    assert status["families"]["mr"] == {
        "patients": 5,
        "studies": 5,
        "kinds": {"volume": 5},
        "shapes": [{"shape": [6, 20, 24], "items": 5}],
        "other_shapes": 0,
        "series_of_several_volumes": 0,
        "spacing_mm": {"volume": [[4.0, 4.0], [1.0, 1.0], [1.0, 1.0]]},
    }
    assert status["families"]["radiograph"]["spacing_mm"] == {}
    assert status["quarantine"] == {"held": {}, "released": {}, "dropped": {}}
    assert status["cache_bytes"] == sum(path.stat().st_size for path in site.cache.rglob("*.npy"))
    assert status["prepared"] == []
    text = run_hilum("site", "status").stdout
    assert "mr: 5 volumes of 5 patients in 5 studies" in text
    assert "volume spacing 4 x 1 x 1 mm" in text
    assert "1 skipped: a scout image, or a few images across the slices of a volume (localizer)" in text


def test_status_says_of_what_it_leaves_out_and_why_there_are_more_volumes_than_series(tmp_path):
    items = [
        Item(
            item_key=f"{number}",
            kind="volume",
            family="mr",
            units="arbitrary",
            content_sha256=f"{number:064}",
            shape=(5 + number, 4, 4),
            spacing_mm=(1.0, 1.0, 1.0),
            affine=(),
            sop_key="",
            series_key="several" if number < 3 else f"series {number}",
            study_key="study",
            patient_key="patient",
        )
        for number in range(8)
    ]
    workspace = Workspace(tmp_path)
    catalogue = Catalogue(workspace.catalogue)
    catalogue.record(
        [FileRow("a", "1", "not_dicom"), *(FileRow(f"b{n}", "1", "localizer") for n in range(2))], items
    )
    catalogue.close()
    status = site_status(workspace)
    assert status.families["mr"].other_shapes == 3
    text = "\n".join(status_lines(status))
    assert "3 of other, rarer shapes" in text
    assert "1 series hold several volumes each" in text
    assert text.index("(localizer)") < text.index("(not_dicom)"), "the most frequent first"
    assert "hilum site skipped" in text


def test_status_is_one_frozen_value_that_the_command_line_only_shows(site, run_hilum):
    found = site_status(site)
    with pytest.raises(FrozenInstanceError):
        found.families["mr"].patients = 6
    shown = json.loads(run_hilum("site", "status", "--json").stdout)
    assert {**shown, "free_bytes": 0} == json.loads(json.dumps({**status_json(found), "free_bytes": 0}))
    assert run_hilum("site", "status").stdout.splitlines()[:5] == status_lines(found)[:5]


def test_status_lists_what_is_prepared_for_studies(site, run_hilum):
    folder = site.prepared / "radiograph-2d-64px-0123456789abcdef01234567"
    folder.mkdir(parents=True)
    (folder / "images.npy").write_bytes(b"\0" * 1000)
    (one,) = json.loads(run_hilum("site", "status", "--json").stdout)["prepared"]
    assert one == {"family": "radiograph", "what": "whole images", "size": "64px", "bytes": 1000}
