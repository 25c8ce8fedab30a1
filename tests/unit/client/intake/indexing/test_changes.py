"""A pass is held against the catalogue before anything is done: what is new, changed, gone, and which series that touches."""

from dataclasses import replace
from pathlib import Path

import pytest

from hilum.client.intake.indexing.changes import Told, compare
from hilum.client.intake.reasons import Reason
from hilum.client.intake.sources.scan import FoundFile
from hilum.client.intake.sources.sources import Found, Source, removed_key
from hilum.client.state.catalogue import ACCEPTED, FileRow
from hilum.client.state.workspace import Pseudonyms

NAMES = Pseudonyms(bytes(32))
FOLDER, INBOX = Path("/archive"), Path("/state/inbox")
DICOM_ONLY = Told(None, forget=False)


def found(*names, inbox=None):
    """Files of these names, `name` or `name:identity`; of the inbox alone where there is no folder."""
    sources = []
    for folder, prefix, files in ((FOLDER, "", names), (INBOX, "inbox:", inbox or ())):
        pairs = (one.partition(":") for one in files)
        sources.append(
            Source(
                folder,
                prefix,
                tuple(FoundFile(folder / name, identity or "1") for name, _, identity in pairs),
            )
        )
    return Found(FOLDER if names else None, tuple(sources if names else sources[1:]))


def key(name, prefix=""):
    return prefix + NAMES.of("file", name)


def row(name, series="s", *, status=ACCEPTED, sop=None, prefix="", identity="1"):
    return FileRow(key(name, prefix), identity, status, sop or name, series, "study")


def held(rows, files, told=DICOM_ONLY):
    return compare({one.file_key: one for one in rows}, files, NAMES, told)


def test_of_an_empty_catalogue_all_is_new_and_no_series_is_touched():
    changes = held([], found("a", "b"))
    assert changes.new == changes.unread == {key("a"), key("b")}
    assert (changes.changed, changes.gone, changes.unchanged) == (set(), (), {})
    assert changes.touched == set()


def test_a_file_is_as_it_was_while_its_identity_is():
    changes = held([row("a"), row("b", "t"), row("c", "u")], found("a", "b:2"))
    assert changes.unchanged.keys() == {key("a")}
    assert changes.changed == {key("b")}
    assert changes.gone == (key("c"),)
    assert changes.touched == {"t", "u"}


def test_a_file_that_could_not_be_read_is_tried_again():
    changes = held([row("a", "", status=Reason.UNREADABLE)], found("a"))
    assert (changes.changed, changes.touched) == ({key("a")}, set())


def test_other_files_of_an_instance_that_is_gone_are_read_again_in_whatever_series():
    rows = [row("a", sop="x"), row("b", "t", sop="x", status=Reason.DUPLICATE), row("c", "u")]
    changes = held(rows, found("b", "c"))
    assert changes.changed == {key("b")}
    assert changes.touched == {"s", "t"}


def test_what_lies_where_a_pass_does_not_look_is_neither_gone_nor_read():
    rows = [row("a"), row("b", prefix="inbox:")]
    changes = held(rows, found(inbox=["b:2"]))
    assert [one.file_key for one in changes.unseen] == [key("a")]
    assert changes.elsewhere == changes.touched == {"s"}
    assert changes.changed == {key("b", "inbox:")}
    assert changes.split == [rows[0]]


def test_a_slice_that_was_set_aside_does_not_touch_a_series_that_goes_on_elsewhere():
    rows = [row("a"), row("b", prefix="inbox:", status=Reason.TRUNCATED_PIXELS)]
    assert held(rows, found(inbox=["b:2"])).touched == set()


def test_a_series_of_which_files_were_removed_from_the_inbox_stays():
    removed = replace(row("b"), file_key=removed_key(key("b", "inbox:")))
    changes = held([row("a"), removed], found("a:2"))
    assert (changes.unseen, changes.touched, changes.split) == ((removed,), set(), [])


def test_the_part_of_a_split_series_that_is_in_view_is_looked_at_again():
    assert held([row("a", status=Reason.SPLIT_SERIES)], found("a")).changed == {key("a")}


@pytest.mark.parametrize(
    ("identity", "status", "told", "unchanged"),
    [
        ("1", Reason.NEEDS_FAMILY, DICOM_ONLY, True),
        ("1", Reason.NEEDS_FAMILY, Told("radiograph", forget=False), False),
        ("1:radiograph", ACCEPTED, DICOM_ONLY, True),
        ("1:radiograph", ACCEPTED, Told("radiograph", forget=False), True),
        ("1:radiograph", ACCEPTED, Told("photograph", forget=False), False),
        ("1:radiograph", ACCEPTED, Told(None, forget=True), False),
        ("1", ACCEPTED, Told("radiograph", forget=False), True),  # read as DICOM, whatever its name
    ],
)
def test_a_picture_is_another_file_once_it_is_told_what_made_it(identity, status, told, unchanged):
    changes = held([row("a.png", identity=identity, status=status)], found("a.png"), told)
    assert (key("a.png") in changes.unchanged) == unchanged
