"""Requests for a certificate: a stranger's file."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from hilum.common.errors import ConfigError
from hilum.common.security.certificates import make_root, make_site_certificate, pem_of
from hilum.common.security.keys import fingerprint, public_bytes
from hilum.common.security.requests import MAX_REQUEST_BYTES, make_request, read_request
from papers_by_hand import ED25519, P384, RSA, by_sentence, extension, stored

# Requests: a stranger's file.


def csr(key, *names, algorithm=None, extensions=()):
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    for one in extensions:
        builder = builder.add_extension(one, critical=True)
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


GOOD = make_request("st-elsewhere", P384)


def test_a_good_request_gives_name_and_key():
    request = read_request(GOOD, "site.csr")
    assert request.name == "st-elsewhere"
    assert request.fingerprint == fingerprint(public_bytes(P384.public_key()))
    p256 = ec.generate_private_key(ec.SECP256R1())
    assert read_request(csr(p256, "a", algorithm=hashes.SHA256()), "site.csr").name == "a"


def test_nothing_that_a_request_asks_for_beyond_name_and_key_is_granted(root, root_key):
    wishes = [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectAlternativeName([x509.DNSName("federation.example")]),
    ]
    asked = read_request(csr(P384, "a", algorithm=hashes.SHA384(), extensions=wishes), "site.csr")
    made = make_site_certificate(asked.name, asked.public_key, root, root_key)
    assert not extension(made, x509.BasicConstraints).ca
    assert list(extension(made, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        extension(made, x509.SubjectAlternativeName)


def forged():
    """The name of one request with the signature of another."""
    other = x509.load_pem_x509_csr(make_request("st-elsewhera", P384))
    der = x509.load_pem_x509_csr(GOOD).public_bytes(Encoding.DER)
    changed = der.replace(b"st-elsewhere", b"st-elsewhera")
    assert changed != der
    assert other.is_signature_valid
    return x509.load_der_x509_csr(changed).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (csr(ED25519, "a"), "is for an Ed25519 key; expected an elliptic-curve key on P-384 or P-256"),
        (csr(ed448.Ed448PrivateKey.generate(), "a"), "is for an Ed448 key"),
        (csr(RSA, "a", algorithm=hashes.SHA256()), "is for an RSA key of 2048 bits"),
        (csr(ec.generate_private_key(ec.SECP521R1()), "a", algorithm=hashes.SHA384()), "on secp521r1"),
        (csr(ec.generate_private_key(ec.SECP256K1()), "a", algorithm=hashes.SHA384()), "on secp256k1"),
        (csr(P384, algorithm=hashes.SHA384()), "has 0 common names"),
        (csr(P384, "a", "b", algorithm=hashes.SHA384()), "has 2 common names"),
        (csr(P384, "../../etc", algorithm=hashes.SHA384()), r"the name '\.\./\.\./etc' is not one"),
        (csr(P384, "st elsewhere", algorithm=hashes.SHA384()), "is not one"),
        (csr(P384, "name\n", algorithm=hashes.SHA384()), "is not one"),
        (csr(P384, "\x1b[31m", algorithm=hashes.SHA384()), "is not one"),
        (csr(P384, "шпиталь", algorithm=hashes.SHA384()), "is not one"),
        (forged(), "is not signed by the key that it is for"),
        (stored(P384), "is a private key, which must not leave its site"),
        (
            P384.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "is a bare public key",
        ),
        (P384.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "is an OpenSSH key"),
        (ED25519.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), "is an OpenSSH key"),
        (pem_of(make_root(P384, "a")), "is a certificate, not a request"),
        (b"", "is not a request"),
        (b"\0" * 1000, "is not a request"),
        (GOOD[: len(GOOD) // 2], "is not a request"),
        (GOOD + b" " * MAX_REQUEST_BYTES, "is longer than 16 KiB"),
    ],
    ids=by_sentence,
)
def test_every_other_request_is_refused_with_its_own_sentence(content, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_request(content, "site.csr")
    assert str(caught.value).isprintable()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_a_request_with_changed_bytes_is_refused_or_the_same(at, junk):
    changed = GOOD[:at] + junk + GOOD[at + len(junk) :]
    try:
        request = read_request(changed, "site.csr")
    except ConfigError:
        return
    assert request.name == "st-elsewhere"
    assert public_bytes(request.public_key) == public_bytes(P384.public_key())
