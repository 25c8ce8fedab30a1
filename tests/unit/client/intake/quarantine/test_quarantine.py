"""What may carry burned-in text is held, looked at, and released or dropped; a decision outlives an index."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from hilum.client.intake.instance import Frame, Instance, PixelFormat, Region
from hilum.client.intake.quarantine.rules import Verdict, hold_back, is_suspect, part_to_search
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.quarantine.text_search import TextSearch
from hilum.client.intake.reasons import Reason, Skip
from hilum.client.state.cache import ArrayCache, content_of
from hilum.client.state.catalogue import ACCEPTED, Catalogue, FileRow, Item
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DataError

HELD = Verdict(held=True)


def instance(family="ultrasound", image_type=("ORIGINAL", "PRIMARY"), regions=(), samples=1):
    photometric = "MONOCHROME2" if samples == 1 else "RGB"
    pixels = PixelFormat("1.2.840.10008.1.2.1", 160, 240, 1, samples, photometric, False, 8, 8, 7, False)
    return Instance("1", "2", "3", "4", "", "5", family, image_type, pixels, (Frame(0),), regions=regions)


def plain():
    rows, columns = np.mgrid[:160, :240]
    return (60 + 0.4 * rows + 0.3 * columns).astype(np.uint8)


def with_text(place=(5, 3)):
    image = Image.fromarray(plain())
    ImageDraw.Draw(image).text(place, "DOE^JANE", font=ImageFont.load_default(size=18), fill=255)
    return np.asarray(image).copy()


def judged(facts, pixels):
    """The verdict on pixels, which a worker searches."""
    part = part_to_search(facts)
    frames = pixels if pixels.ndim > 2 + (facts.pixels.samples > 1) else pixels[None]
    search = TextSearch(part, len(frames))
    for number, frame in enumerate(frames):
        search.look(number, frame)
    return hold_back(facts, search.found())


def draft(name, family="ultrasound"):
    key = f"{name:0>32}"
    return Item(key, "image", family, "display", "", (), (0.2, 0.2), (), key, "series", "study", "patient")


@pytest.fixture
def site(tmp_path):
    workspace = Workspace(tmp_path / "hilum-home" / "site")
    catalogue = Catalogue(workspace.catalogue)
    yield workspace, catalogue, Quarantine(workspace, catalogue)
    catalogue.close()


def hold(site, name, array):
    """As an index does it: the image is offered, and its file is listed as waiting."""
    _, catalogue, held = site
    with pytest.raises(Skip) as skip:
        held.admit(draft(name), array, HELD)
    catalogue.record([FileRow(f"file {name}", "1", skip.value.reason, draft(name).sop_key)])
    return draft(name).item_key


@pytest.mark.parametrize("family", ["ultrasound", "secondary", "angiogram", "photograph"])
def test_families_that_carry_text_are_suspect_whatever_their_image_type(family):
    assert is_suspect(instance(family))


@pytest.mark.parametrize(
    ("family", "image_type", "suspect"),
    [
        ("ct", ("ORIGINAL", "PRIMARY", "AXIAL"), False),
        ("ct", ("DERIVED", "SECONDARY", "MPR"), False),
        ("ct", ("DERIVED", "SECONDARY", "SCREEN SAVE"), True),
        ("mr", ("DERIVED", "PRIMARY", "SCREENSAVE"), True),
        ("ct", ("DERIVED", "SECONDARY", "DOSE_INFO"), True),
        ("radiograph", ("DERIVED", "PRIMARY"), False),
        ("radiograph", ("DERIVED", "SECONDARY"), True),
    ],
)
def test_screen_saves_of_any_family_are_suspect(family, image_type, suspect):
    assert is_suspect(instance(family, image_type)) is suspect


def test_an_image_that_is_not_suspect_passes_unsearched():
    assert part_to_search(instance("ct")) is None
    assert hold_back(instance("ct"), None) == Verdict(held=False)


def test_a_suspect_image_is_held_unsearched_or_with_text_and_free_without():
    assert hold_back(instance(), None).held
    assert judged(instance(), with_text()).held
    assert judged(instance(), plain()) == Verdict(held=False)


def test_a_text_in_one_frame_or_one_colour_holds_the_clip():
    clip = np.stack([plain(), plain(), with_text()])
    assert judged(instance(), clip).held
    assert not judged(instance(), clip[:2]).held
    colour = np.stack([plain(), plain(), with_text()], axis=-1)
    assert judged(instance(samples=3), colour).held


def test_a_text_in_any_one_frame_of_a_long_clip_holds_it():
    for place in (1, 37, 59):
        clip = np.stack([plain()] * 60)
        assert not judged(instance(), clip).held
        clip[place] = with_text()
        assert judged(instance(), clip).held


def test_a_region_with_text_is_not_freed_by_a_whole_in_which_none_is_found(monkeypatch):
    monkeypatch.setattr(
        "hilum.client.intake.quarantine.text_search.has_text", lambda image: image.shape == (100, 200)
    )
    region = Region(40, 20, 139, 219, (0.2, 0.2))
    assert judged(instance(regions=(region,)), plain()).held
    assert not judged(instance(), plain()).held


def test_ultrasound_is_cropped_to_its_region_where_the_text_lies_outside():
    region = Region(40, 20, 139, 219, (0.2, 0.2))
    assert judged(instance(regions=(region,)), with_text()) == Verdict(
        held=False, crop=(40, 20, 140, 220), spacing_mm=region.spacing_mm
    )
    assert judged(instance(regions=(region,)), with_text((60, 80))).held


def test_of_several_regions_the_largest_plane_of_space_is_taken():
    trace = Region(0, 0, 159, 20)
    smaller = Region(41, 20, 60, 219, (0.2, 0.2))
    wanted = Region(40, 20, 139, 219, (0.2, 0.3))
    verdict = judged(instance(regions=(trace, smaller, wanted)), with_text())
    assert (verdict.crop, verdict.spacing_mm) == ((40, 20, 140, 220), (0.2, 0.3))


def test_a_region_that_is_no_plane_of_space_or_leaves_the_image_does_not_free_it():
    trace = Region(40, 20, 139, 219, None)
    outside = Region(40, 20, 139, 400, (0.2, 0.2))
    assert judged(instance(regions=(trace, outside)), with_text()).held


def test_a_held_image_lies_in_its_own_folder_for_its_owner_alone(site):
    workspace, _, held = site
    key = hold(site, "a", with_text())
    (one,) = held.list_held()
    assert (one.item.item_key, one.reason, one.state) == (key, Reason.BURNED_IN_TEXT, "held")
    np.testing.assert_array_equal(held.array(one), with_text())
    assert held.folder.stat().st_mode & 0o077 == 0
    assert [path.stat().st_mode & 0o077 for path in held.folder.iterdir()] == [0]
    assert not workspace.cache.exists()
    assert held.counts()["held"] == {"ultrasound": 1}


def test_a_free_image_goes_to_the_cache_cropped_as_its_verdict_says(site):
    workspace, _, held = site
    item = held.admit(draft("a"), with_text(), Verdict(held=False, crop=(40, 20, 140, 220)))
    assert item.shape == (100, 200)
    np.testing.assert_array_equal(
        ArrayCache(workspace.cache).get(item.content_sha256), with_text()[40:140, 20:220]
    )
    assert held.list_all() == []


def test_release_moves_an_image_into_cache_and_catalogue(site):
    workspace, catalogue, held = site
    key = hold(site, "a", with_text())
    assert held.release(held.find([key])) == 1
    (item,) = catalogue.items()
    np.testing.assert_array_equal(ArrayCache(workspace.cache).get(item.content_sha256), with_text())
    assert item.content_sha256 == content_of(with_text())
    assert catalogue.files()["file a"].status == ACCEPTED
    assert held.list_held() == []
    assert list(held.folder.iterdir()) == []


def test_a_cropped_release_keeps_only_the_crop(site):
    workspace, catalogue, held = site
    held.release(held.find([hold(site, "a", with_text())]), (40, 20, 140, 220))
    (item,) = catalogue.items()
    assert item.shape == (100, 200)
    arrays = list(workspace.folder.rglob("*.npy"))
    assert len(arrays) == 1
    np.testing.assert_array_equal(np.load(arrays[0]), with_text()[40:140, 20:220])


@pytest.mark.parametrize("crop", [(0, 0, 161, 10), (-1, 0, 50, 50), (50, 50, 50, 90), (0, 0, 4, 100)])
def test_a_crop_outside_the_image_releases_nothing(site, crop):
    _, catalogue, held = site
    keys = [hold(site, name, with_text()) for name in "ab"]
    with pytest.raises(DataError, match="crop"):
        held.release(held.find(keys), crop)
    assert len(held.list_held()) == 2
    assert catalogue.items() == []


def test_drop_removes_the_pixels_and_counts_the_file(site):
    workspace, catalogue, held = site
    held.drop(held.find([hold(site, "a", with_text())]))
    assert catalogue.files()["file a"].status == Reason.DROPPED
    assert list(workspace.folder.rglob("*.npy")) == []
    assert held.counts()["dropped"] == {"ultrasound": 1}


def test_decisions_hold_when_the_same_pixels_come_again_and_not_for_others(site):
    held = site[2]
    keys = {name: hold(site, name, with_text((5, row))) for name, row in (("a", 3), ("b", 9), ("c", 15))}
    held.release(held.find([keys["a"]]), (40, 20, 140, 220))
    held.drop(held.find([keys["b"]]))
    again = held.admit(draft("a"), with_text((5, 3)), HELD)
    assert again.shape == (100, 200)
    with pytest.raises(Skip) as dropped:
        held.admit(draft("b"), with_text((5, 9)), Verdict(held=False))
    assert dropped.value.reason == Reason.DROPPED
    for name in "abc":
        with pytest.raises(Skip) as anew:
            held.admit(draft(name), with_text((60, 90)), HELD)
        assert anew.value.reason == Reason.BURNED_IN_TEXT
    assert len(held.list_held()) == 3


def test_two_instances_with_the_same_pixels_share_a_file_that_stays_until_both_are_settled(site):
    _, catalogue, held = site
    first, second = hold(site, "a", with_text()), hold(site, "b", with_text())
    held.drop(held.find([first]))
    held.release(held.find([second]))
    assert len(catalogue.items()) == 1


def test_what_the_archive_no_longer_has_is_swept_and_decisions_stay(site):
    held = site[2]
    gone, dropped = hold(site, "a", with_text()), hold(site, "b", with_text((5, 40)))
    held.drop(held.find([dropped]))
    assert held.sweep({"another"}) == 1
    assert gone not in {one.item.item_key for one in held.list_all()}
    assert [one.state for one in held.list_all()] == ["dropped"]
    assert list(held.folder.iterdir()) == []


def test_keys_may_be_shortened_but_not_wrong_twice_fitting_or_decided(site):
    held = site[2]
    image = with_text()
    with pytest.raises(Skip):
        held.admit(replace(draft("x"), item_key="abcdefgh1", sop_key="1"), image, HELD)
    with pytest.raises(Skip):
        held.admit(replace(draft("x"), item_key="abcdefgh2", sop_key="2"), image, HELD)
    assert len(held.find(["abcdefgh1"])) == 1
    with pytest.raises(DataError, match="several"):
        held.find(["abcdefgh"])
    for unknown in ("", "abc", "zzzzzzzzzz"):
        with pytest.raises(DataError, match="nowhere"):
            held.find([unknown])
    held.drop(held.find(["abcdefgh1"]))
    with pytest.raises(DataError, match="dropped already"):
        held.find(["abcdefgh1"])


def test_the_command_lists_shows_releases_and_drops(site, run_hilum):
    workspace, catalogue, _ = site
    keys = [hold(site, name, with_text((5, row))) for name, row in (("a", 3), ("b", 9), ("c", 15))]
    listed = json.loads(run_hilum("site", "quarantine", "--json").stdout)
    assert listed["held"] == 3
    assert {image["key"] for image in listed["images"]} == set(keys)
    text = run_hilum("site", "quarantine").stdout
    assert "3 ultrasound" in text
    assert all(f"{key}  ultrasound, " in text for key in keys)
    page = json.loads(run_hilum("site", "quarantine", "show", "--json").stdout)["page"]
    with open(page) as file:  # noqa: PTH123 - a path from the command
        text = file.read()
    assert all(key in text for key in keys)
    assert not re.search(r"(src|href)=\"(?!data:|page-|index)", text)
    done = run_hilum("site", "quarantine", "release", keys[0], "--crop", 40, 20, 140, 220, "--json")
    assert json.loads(done.stdout) == {"released": 1, "held": 2}
    assert not (workspace.folder / "quarantine-gallery").exists()
    assert json.loads(run_hilum("site", "quarantine", "drop", "--all", "--json").stdout)["dropped"] == 2
    assert [item.shape for item in catalogue.items()] == [(100, 200)]
    status = json.loads(run_hilum("site", "status", "--json").stdout)
    assert status["quarantine"] == {
        "held": {},
        "released": {"ultrasound": 1},
        "dropped": {"ultrasound": 2},
    }


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["release", "zzzzzzzzzz"], 3),
        (["release"], 2),
        (["drop", "zzzzzzzzzz", "--all"], 2),
        (["list", "zzzzzzzzzz"], 2),
        (["drop", "--all", "--crop", 0, 0, 9, 9], 2),
    ],
)
def test_a_wrong_call_is_one_line_and_changes_nothing(site, run_hilum, words, code):
    hold(site, "a", with_text())
    done = run_hilum("site", "quarantine", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert len(site[2].list_held()) == 1
