import numpy as np
import pytest

from hilum.client.intake.indexing.index import index_archive
from hilum.client.state.catalogue import Catalogue
from hilum.client.state.labels import read_labels
from hilum.client.state.workspace import Workspace
from hilum.common.errors import LabelError
from hilum.common.progress import NullProgress


@pytest.fixture
def site(dicom, tmp_path):
    """Three images, and a fourth whose pixels can't be used."""
    rng = np.random.default_rng(0)
    made = [
        dicom(tmp_path / "dicom" / f"{n}.dcm", rng.integers(0, 99, (8, 8)).astype(np.uint16))
        for n in range(3)
    ]
    made.append(dicom(tmp_path / "dicom" / "flat.dcm", np.zeros((8, 8), np.uint16)))
    workspace = Workspace(tmp_path / "state")
    index_archive(tmp_path / "dicom", workspace, NullProgress())
    return made, Catalogue(workspace.catalogue), workspace.pseudonyms()


@pytest.fixture
def read(site, tmp_path):
    def run(text, column="label"):
        path = tmp_path / "labels.csv"
        path.write_text(text)
        return read_labels(path, column, *site[1:])

    return run


def test_labels_are_tied_to_images_by_uid(site, read):
    made = site[0]
    rows = "".join(f"{d.SOPInstanceUID},P{n},{n % 2}\n" for n, d in enumerate(made[:3]))
    labels = read("sop_instance_uid,patient,label\n" + rows)
    assert sorted(labels.label_of.values()) == ["0", "0", "1"]
    assert len(set(labels.patient_of.values())) == 3
    assert made[0].SOPInstanceUID not in repr(labels)


def test_a_study_uid_labels_all_its_images(site, read):
    labels = read(f"study_instance_uid,patient,label\n{site[0][0].StudyInstanceUID},P,9\n")
    assert list(labels.label_of.values()) == ["9"]


def test_an_empty_label_is_no_label_but_tells_the_patient(site, read):
    labels = read(f"sop_instance_uid,patient,label\n{site[0][0].SOPInstanceUID},P,\n")
    assert labels.label_of == {}
    assert len(labels.patient_of) == 1


def test_a_label_for_an_image_that_was_set_aside_is_counted(site, read):
    labels = read(f"sop_instance_uid,patient,label\n{site[0][3].SOPInstanceUID},P,1\n")
    assert (labels.label_of, labels.without_image) == ({}, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sop_instance_uid,patient,label\n1.2.3,P,1\n",
            r"labels.csv line 2: its sop_instance_uid is in no indexed file",
        ),
        (
            "uid,patient,label\n",
            "needs one of the columns sop_instance_uid, series_instance_uid, study_instance_uid",
        ),
        ("sop_instance_uid,label\n", "no column `patient`"),
        ("sop_instance_uid,patient\n", "no column `label`"),
        ("", "needs one of the columns"),
    ],
)
def test_a_wrong_table_is_told_what_to_mend(read, text, message):
    with pytest.raises(LabelError, match=message) as caught:
        read(text)
    assert "1.2.3" not in str(caught.value), "a UID must not reach an error text"


def test_two_labels_for_one_image_are_refused(site, read):
    uid = site[0][0].SOPInstanceUID
    with pytest.raises(LabelError, match="line 3: this image already has another label"):
        read(f"sop_instance_uid,patient,label\n{uid},P,1\n{uid},P,0\n")


def test_a_missing_or_binary_table_is_refused(site, tmp_path):
    with pytest.raises(LabelError, match="does not exist"):
        read_labels(tmp_path / "none.csv", "label", *site[1:])
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelError, match="UTF-8"):
        read_labels(tmp_path / "b.csv", "label", *site[1:])


def test_a_missing_word_is_no_label_and_no_patient(site, read):
    made = site[0]
    rows = "".join(
        f"{d.SOPInstanceUID},nan,{label}\n" for d, label in zip(made[:3], ("NA", "1.0", "1"), strict=True)
    )
    labels = read("sop_instance_uid,patient,label\n" + rows)
    assert sorted(labels.label_of.values()) == ["1", "1"]
    assert labels.patient_of == {}, "three images of `nan` are not one person's"
    assert dict(labels.read_as_missing) == {"NA": 1}


def test_a_patient_is_one_in_whatever_form_a_table_gives_the_name(site, read):
    made = site[0]
    rows = "".join(
        f"{d.SOPInstanceUID},{name},1\n" for d, name in zip(made[:3], ("p17 ", "P17", "p17"), strict=True)
    )
    assert len(set(read("sop_instance_uid,patient,label\n" + rows).patient_of.values())) == 1
    rows = "".join(
        f"{d.SOPInstanceUID},{name},1\n" for d, name in zip(made[:3], ("17", "17.0", "18"), strict=True)
    )
    assert len(set(read("sop_instance_uid,patient,label\n" + rows).patient_of.values())) == 2


def test_patients_with_a_point_in_their_names_stay_apart(site, read):
    made = site[0]
    names = ("12.1", "12.10", "12.100")
    rows = "".join(f"{d.SOPInstanceUID},{name},1\n" for d, name in zip(made[:3], names, strict=True))
    assert len(set(read("sop_instance_uid,patient,label\n" + rows).patient_of.values())) == 3


def test_two_patients_for_one_image_are_refused(site, read):
    uid = site[0][0].SOPInstanceUID
    with pytest.raises(LabelError, match="line 3: this image already has another patient"):
        read(f"sop_instance_uid,patient,label\n{uid},P,1\n{uid},Q,1\n")
    assert read(f"sop_instance_uid,patient,label\n{uid},P,1\n{uid},P,1.0\n").label_of, (
        "the same line twice does no harm"
    )
