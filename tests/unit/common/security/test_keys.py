"""Keys: of the right kind, for their owner alone."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import PrivateFormat

from hilum.common.errors import ConfigError
from hilum.common.security.keys import (
    MAX_PAPER_BYTES,
    fingerprint,
    new_key,
    public_bytes,
    read_site_key,
    read_study_key,
    write_private_key,
)
from hilum.common.signing import public_text
from papers_by_hand import ED25519, RSA, by_sentence, mode, stored

# Keys.


def test_a_key_is_written_for_its_owner_alone_whatever_the_umask_and_never_over_another(tmp_path):
    before = os.umask(0)
    try:
        write_private_key(tmp_path / "site.key", new_key())
    finally:
        os.umask(before)
    assert mode(tmp_path / "site.key") == 0o600
    first = (tmp_path / "site.key").read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        write_private_key(tmp_path / "site.key", new_key())
    assert (tmp_path / "site.key").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["site.key"]


def test_a_key_that_others_may_read_is_refused(tmp_path):
    write_private_key(tmp_path / "site.key", new_key())
    (tmp_path / "site.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_site_key(tmp_path / "site.key")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (stored(ED25519), "holds an Ed25519 key; expected an elliptic-curve key on P-384"),
        (stored(ED25519, form=PrivateFormat.OpenSSH), "holds an Ed25519 key"),
        (stored(RSA), "holds an RSA key of 2048 bits"),
        (stored(ec.generate_private_key(ec.SECP521R1())), "holds an elliptic-curve key on secp521r1"),
        (stored(new_key(), b"secret"), "is protected by a password"),
        (b"", "holds no private key"),
        (os.urandom(32), "holds no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"),
        (b"x" * (MAX_PAPER_BYTES + 1), "is longer than"),
    ],
    ids=by_sentence,
)
def test_a_wrong_key_is_named_for_what_it_is(tmp_path, content, sentence):
    path = tmp_path / "site.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=sentence):
        read_site_key(path)


def test_an_openssh_key_on_the_right_curve_is_taken(tmp_path):
    key = new_key()
    (tmp_path / "site.key").write_bytes(stored(key, form=PrivateFormat.OpenSSH))
    (tmp_path / "site.key").chmod(0o600)
    assert public_bytes(read_site_key(tmp_path / "site.key").public_key()) == public_bytes(key.public_key())


def test_studies_are_signed_with_an_ed25519_key_alone(tmp_path):
    write_private_key(tmp_path / "study.key", ED25519)
    assert public_text(read_study_key(tmp_path / "study.key").public_key()) == public_text(
        ED25519.public_key()
    )
    write_private_key(tmp_path / "other.key", new_key())
    with pytest.raises(ConfigError, match="holds an elliptic-curve key on P-384; expected an Ed25519 key"):
        read_study_key(tmp_path / "other.key")


def test_a_fingerprint_can_be_read_out_and_differs_by_key():
    spoken = fingerprint(public_bytes(new_key().public_key()))
    assert [len(group) for group in spoken.split(" ")] == [4] * 8
    assert spoken != fingerprint(public_bytes(new_key().public_key()))
