"""Names of structures enter as codes, or through the site's label map."""

import highdicom
import pytest

from annotated_site import ball, circle, points_mm, write_rtstruct, write_seg
from hilum.client.intake.formats.naming import Code, LabelMap, read_label_map
from hilum.client.intake.reasons import Reason, Skip
from hilum.common.errors import ConfigError


def test_text_of_a_dicom_object_enters_only_through_the_map(site):
    private = highdicom.sr.CodedConcept("ZZPHI-1", "99ZZPHI", "ZZPHI")
    write_seg(site.folder / "a.dcm", site.datasets[:-1], ball(site.affine), code=private)
    write_rtstruct(site.folder / "b.dcm", site, [points_mm(site.affine, 5, circle(5))])
    assert site.annotate().skipped == {"label_not_mapped": 2}
    site.annotate(labels=LabelMap({"zzphi label": "organ", "zzphi roi": "target"}))
    assert set(site.masks()) == {"organ", "target"}
    site.annotate(labels=LabelMap({"99zzphi:zzphi-1": "by code", "zzphi roi": "target"}))
    assert set(site.masks()) == {"by code", "target"}
    state = [path for path in site.workspace.folder.rglob("*") if path.is_file()]
    assert not [path for path in state if b"ZZPHI" in path.read_bytes().upper()]


@pytest.mark.parametrize(
    "code", [Code("SCT", "ZZPHI"), Code("SCT", "19500231"), Code("99X", "10200004"), Code("DCM", "123")]
)
def test_what_only_looks_like_a_code_does_not_pass(code):
    with pytest.raises(Skip) as caught:
        LabelMap().of_object("", code)
    assert caught.value.reason == Reason.UNMAPPED_LABEL


def test_a_label_map_folds_case_and_spaces(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text('[labels]\n"Left  LUNG" = "lung-left"\n')
    assert read_label_map(path).of_object(" left lung ", None) == "lung-left"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels = 3", "one table"),
        ("x", "not TOML"),
        ("[labels]\n", "at least one line"),
        ("[labels]\na = 3\n", "entry 1"),
        ('[labels]\na = "b"\nA = "c"\n', "differ only"),
        ('[other]\na = "b"\n', "one table"),
    ],
)
def test_a_wrong_label_map_says_what_to_write(tmp_path, text, words):
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_label_map(path)
