"""Enrolling, joining, and the link in the site file."""

import os
import stat
import tomllib

import pytest
from cryptography import x509

from hilum.common.errors import ConfigError
from hilum.common.security.certificates import make_root, make_site_certificate, pem_of
from hilum.common.security.keys import MAX_PAPER_BYTES, new_key, write_paper
from hilum.common.security.link_file import read_link_file
from hilum.common.security.requests import read_request
from hilum.common.security.site_folder import enroll, join, link_table, put_into_site_file
from papers_by_hand import mode

# Enrolment and joining.


def test_enrolling_makes_a_key_and_a_request_and_twice_keeps_the_key(tmp_path):
    first = enroll(tmp_path / "papers", "st-elsewhere")
    again = enroll(tmp_path / "papers", "st-elsewhere")
    assert (first.fresh, again.fresh) == (True, False)
    assert first.fingerprint == again.fingerprint
    assert mode(tmp_path / "papers") == 0o700
    assert mode(tmp_path / "papers" / "site.key") == 0o600
    request = read_request(first.request.read_bytes(), "site.csr")
    assert (request.name, request.fingerprint) == ("st-elsewhere", first.fingerprint)


def test_papers_in_a_folder_that_others_use_leave_it_as_it_is(tmp_path):
    """Root may well do this in /tmp."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    enroll(shared, "st-elsewhere")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert [mode(path) for path in sorted(shared.iterdir())] == [0o600, 0o600]
    write_paper(shared / "new" / "paper", b"x")
    assert mode(shared / "new") == 0o700


def test_enrolling_does_not_touch_another_kind_of_key(tmp_path):
    (tmp_path / "site.key").write_bytes(os.urandom(32))
    (tmp_path / "site.key").chmod(0o600)
    before = (tmp_path / "site.key").read_bytes()
    with pytest.raises(ConfigError, match="holds no private key"):
        enroll(tmp_path, "st-elsewhere")
    assert (tmp_path / "site.key").read_bytes() == before


def test_a_folder_that_can_not_be_written_is_named_as_that(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"):
        enroll(tmp_path / "file" / "papers", "st-elsewhere")


def test_joining_puts_the_papers_beside_the_key(tmp_path, approve, root):
    enroll(tmp_path, "st-elsewhere")
    link = join(tmp_path, approve(tmp_path, tmp_path / "st-elsewhere.link.toml"))
    assert link.name == "st-elsewhere"
    assert (tmp_path / "root.crt").read_bytes() == pem_of(root)
    assert x509.load_pem_x509_certificate((tmp_path / "site.crt").read_bytes()) == link.certificate
    table = tomllib.loads(link_table(link, tmp_path, tmp_path))["link"]
    assert table == {
        "server": "federation.example:9443",
        "root_certificate": "root.crt",
        "certificate": "site.crt",
        "key": "site.key",
        "study_key": link.study_key,
    }
    elsewhere = tomllib.loads(link_table(link, tmp_path, tmp_path / "conf"))["link"]
    assert elsewhere["key"] == str(tmp_path / "site.key")


def test_a_link_file_holds_no_path_and_no_secret(tmp_path, approve):
    enroll(tmp_path, "st-elsewhere")
    text = approve(tmp_path, tmp_path / "x.link.toml").read_text()
    assert str(tmp_path) not in text
    assert "PRIVATE" not in text


def test_joining_without_the_key_or_with_anothers_link_changes_nothing(tmp_path, approve):
    enroll(tmp_path / "one", "one")
    enroll(tmp_path / "two", "two")
    link = approve(tmp_path / "one", tmp_path / "one.link.toml")
    with pytest.raises(ConfigError, match="hilum site enroll --name one"):
        join(tmp_path / "empty", link)
    with pytest.raises(ConfigError, match="is for another key"):
        join(tmp_path / "two", link)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["site.csr", "site.key"]


def test_a_folder_that_belongs_to_another_federation_stays_with_it(tmp_path, approve):
    enroll(tmp_path, "one")
    join(tmp_path, approve(tmp_path, tmp_path / "one.link.toml"))
    before = (tmp_path / "root.crt").read_bytes()
    other_key = new_key()
    other = make_root(other_key, "another")
    request = read_request((tmp_path / "site.csr").read_bytes(), "site.csr")
    theirs = make_site_certificate("one", request.public_key, other, other_key)
    path = approve(tmp_path, tmp_path / "theirs.link.toml", root=other, certificate=theirs)
    with pytest.raises(ConfigError, match="belongs to another federation"):
        join(tmp_path, path)
    assert (tmp_path / "root.crt").read_bytes() == before


def test_a_link_files_certificate_must_be_of_its_root(tmp_path, approve):
    enroll(tmp_path, "one")
    other = make_root(new_key(), "another")
    with pytest.raises(ConfigError, match="is it of another federation"):
        join(tmp_path, approve(tmp_path, tmp_path / "x.link.toml", root=other))


def test_a_leaf_is_no_root(tmp_path, approve, root, root_key):
    enroll(tmp_path, "one")
    leaf = make_site_certificate("one", new_key().public_key(), root, root_key)
    with pytest.raises(ConfigError, match="is not an authority's certificate"):
        join(tmp_path, approve(tmp_path, tmp_path / "x.link.toml", root=leaf))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no table"),
        ("[link", "holds no table"),
        ("link = 3", "must hold"),
        ("[link]\nserver = 'a:1'", "must hold certificate, root_certificate, server, study_key"),
        ("\xff\xfe", "certificate"),
        ("x" * (MAX_PAPER_BYTES + 1), "is longer than"),
        ("a = " + "[" * 5000, "holds no table"),
    ],
)
def test_what_is_no_link_file_is_refused(tmp_path, text, sentence):
    (tmp_path / "x.link.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="holds no table" if text.startswith("\xff") else sentence):
        read_link_file(tmp_path / "x.link.toml")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"server": "https://a.example/"}, "is not HOST:PORT"),
        ({"study_key": "ed25519:AAAA"}, "is not an Ed25519 public key"),
    ],
)
def test_a_link_files_fields_are_checked(tmp_path, approve, change, sentence):
    enroll(tmp_path, "one")
    with pytest.raises(ConfigError, match=sentence):
        join(tmp_path, approve(tmp_path, tmp_path / "x.link.toml", **change))


# The site file keeps every other line.

TABLE = '[link]\nserver = "b:2"\nkey = "site.key"\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[site]\nname = "one"', '[site]\nname = "one"\n\n' + TABLE),
        ('[site]\nname = "one"\n\n[link]\nserver = "a:1"\n', '[site]\nname = "one"\n\n' + TABLE),
        (
            '# ours\n[site]\nname = "one"  # us\n[link]  # old\nserver = "a:1"\n\n# who\n[policy]\nmax_rounds = 3\n',
            '# ours\n[site]\nname = "one"  # us\n' + TABLE + "\n# who\n[policy]\nmax_rounds = 3\n",
        ),
    ],
)
def test_the_link_goes_into_the_site_file_and_every_other_line_stays(tmp_path, before, after):
    path = tmp_path / "site.toml"
    path.write_text(before)
    path.chmod(0o640)
    put_into_site_file(path, TABLE, "one")
    assert path.read_text() == after
    assert mode(path) == 0o640
    put_into_site_file(path, TABLE, "one")
    assert path.read_text() == after


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[site]\nname = "two"\n', "the certificate is for 'one'"),
        ("[site\n", "is not valid TOML"),
        ('link = {server = "a:1"}\n', "is not written as one"),
        ('[site]\nname = "one"\n[link]\nserver = """\n[policy]\n"""\n', "is not written as one"),
    ],
)
def test_a_site_file_that_can_not_take_the_link_is_left_as_it_is(tmp_path, text, sentence):
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        put_into_site_file(path, TABLE, "one")
    assert path.read_text() == text
