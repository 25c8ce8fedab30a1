"""A site's SQLite files are opened one way; what an earlier version wrote is kept, what a later one wrote is refused."""

import sqlite3
import threading

import pytest

from hilum.client.disclosure.answers import AnswerLedger, Facts
from hilum.client.intake.quarantine.store import Quarantine
from hilum.client.intake.reasons import Reason
from hilum.client.state.catalogue import ACCEPTED, Catalogue, Item
from hilum.client.state.tables import VERSION
from hilum.client.state.workspace import Workspace
from hilum.common.errors import DamagedError, RunError

# The columns of version 2 as they were first written, in their order then.
FILES = "file_key identity status sop_key series_key study_key item_key"
ITEMS = (
    "item_key kind family units content_sha256 shape spacing_mm affine sop_key series_key study_key "
    "patient_key quality"
)
ANNOTATIONS = "annotation_key item_key item_state kind label content_sha256 place source folder_key"
QUARANTINE = (
    "item_key content_sha256 kind family units reason shape spacing_mm affine sop_key series_key study_key "
    "patient_key quality state crop"
)
IMAGE = Item(
    "i", "image", "ultrasound", "display", "abc", (8, 9), (0.2, 0.3), (), "s", "series", "study", "patient"
)


def written_by_an_earlier_version(path, version=2):
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as old:
        for name, columns in (
            ("files", FILES),
            ("items", ITEMS),
            ("annotations", ANNOTATIONS),
            ("quarantine", QUARANTINE),
        ):
            first, *rest = columns.split()
            others = ", ".join(f"{column} VARCHAR NOT NULL" for column in rest)
            old.execute(f"CREATE TABLE {name} ({first} VARCHAR NOT NULL, {others}, PRIMARY KEY ({first}))")
        old.execute("INSERT INTO files VALUES ('f', '1:2:3', '', 's', 'series', 'study', 'i')")
        facts = "'[8, 9]', '[0.2, 0.3]', '[]', 's', 'series', 'study', 'patient', ''"
        old.execute(f"INSERT INTO items VALUES ('i', 'image', 'ultrasound', 'display', 'abc', {facts})")
        held = f"'h', 'def', 'image', 'ultrasound', 'display', '{Reason.BURNED_IN_TEXT}', {facts}"
        old.execute(f"INSERT INTO quarantine VALUES ({held}, 'released', '[0, 1, 8, 9]')")
        old.execute(f"PRAGMA user_version = {version}")
    old.execute("PRAGMA journal_mode=WAL")
    old.close()


@pytest.fixture
def opened(tmp_path):
    """Opens the catalogue of a site, and its quarantine."""
    made = []
    workspace = Workspace(tmp_path / "state")

    def open_site():
        made.append(Catalogue(workspace.catalogue))
        return made[-1], Quarantine(workspace, made[-1])

    yield workspace, open_site
    for one in made:
        one.close()


def test_a_site_of_version_2_goes_on_as_it_was(opened):
    workspace, open_site = opened
    written_by_an_earlier_version(workspace.catalogue)
    catalogue, quarantine = open_site()
    assert catalogue.items() == [IMAGE]
    assert catalogue.files()["f"].status == ACCEPTED
    (decided,) = quarantine.list_all()
    assert (decided.item.item_key, decided.item.shape, decided.state, decided.crop) == (
        "h",
        (8, 9),
        "released",
        (0, 1, 8, 9),
    )
    catalogue.record([], [IMAGE])
    assert catalogue.items() == [IMAGE]


def test_decisions_outlive_tables_of_an_older_version(opened):
    workspace, open_site = opened
    written_by_an_earlier_version(workspace.catalogue, version=1)
    catalogue, quarantine = open_site()
    assert catalogue.items() == []
    assert [one.state for one in quarantine.list_all()] == ["released"]


def test_a_catalogue_of_a_later_version_is_refused_and_left_alone(opened, run_hilum, tmp_path):
    workspace, open_site = opened
    written_by_an_earlier_version(workspace.catalogue, version=VERSION + 1)
    before = workspace.catalogue.read_bytes()
    with pytest.raises(RunError, match="later Hilum"):
        open_site()
    assert workspace.catalogue.read_bytes() == before
    (tmp_path / "hilum-home").mkdir()
    workspace.folder.rename(tmp_path / "hilum-home" / "site")
    done = run_hilum("site", "status")
    assert (done.returncode, done.stdout) == (RunError.exit_code, "")
    assert done.stderr.startswith("error: catalogue.sqlite in the state folder was written by a later Hilum")


def test_a_damaged_file_and_a_folder_that_can_not_be_made_are_clear_errors(tmp_path):
    (tmp_path / "catalogue.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(DamagedError, match="restore it from a backup"):
        Catalogue(tmp_path / "catalogue.sqlite")
    with pytest.raises(RunError, match="can't be opened"):
        Catalogue(tmp_path / "catalogue.sqlite" / "inside" / "catalogue.sqlite")


@pytest.mark.parametrize("version", [0, 1])
def test_answers_that_an_earlier_version_gave_still_count(tmp_path, version):
    path = tmp_path / "answers.sqlite"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE answers (answer INTEGER PRIMARY KEY, question VARCHAR, text VARCHAR)")
        old.execute(
            "CREATE TABLE patients (answer INTEGER, patient_key VARCHAR, images_digest VARCHAR, "
            "labels_digest VARCHAR, PRIMARY KEY (answer, patient_key))"
        )
        old.execute("""INSERT INTO answers VALUES (1, '{}', '{"n": 1}')""")
        old.execute("INSERT INTO patients VALUES (1, 'a', 'x', '')")
        old.execute(f"PRAGMA user_version = {version}")
    old.close()
    ledger = AnswerLedger(path)
    answer = ledger.ask({}, {"a": Facts("x")}, lambda: {"n": 2}, threshold=11)
    evaluated = ledger.evaluate({}, {"a": Facts("x")}, lambda: {"n": 3}, threshold=11, budget=1)
    ledger.close()
    assert (answer.content, answer.new) == ({"n": 1}, False)
    assert (evaluated.content, evaluated.new) == ({"n": 3}, True), "the old answers are descriptions"


def test_processes_that_open_a_new_catalogue_at_once_all_find_its_tables(tmp_path):
    failures, start = [], threading.Barrier(8)

    def open_one():
        start.wait()
        try:
            catalogue = Catalogue(tmp_path / "catalogue.sqlite")
            assert catalogue.items() == []
            catalogue.close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
