"""The federation's own certificates (X.509, RFC 5280): a root, one server, and the sites that the admin approved.

The root signs two kinds and no others: a server's certificate can't stand for a site, nor a site's for the server.
"""

import datetime as dt
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hilum.common.errors import ConfigError
from hilum.common.security.keys import fingerprint, public_bytes

ROOT_DAYS, SERVER_DAYS, SITE_DAYS = 3650, 365, 90
_SERVER_NAME = "Hilum server"  # with a space, so that it is never a site's name
_CLOCK_SKEW = dt.timedelta(hours=1)  # a site whose clock is behind must be able to use a fresh certificate
_MAX_HOST = 253  # RFC 1035
_SEND_AGAIN = "send site.csr to the federation's admin again"
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def make_root(key: ec.EllipticCurvePrivateKey, name: str) -> x509.Certificate:
    """Return the federation's root; it signs servers and sites, and no further authorities."""
    subject = _named(name)
    return (
        _builder(subject, subject, key.public_key(), ROOT_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(key, hashes.SHA384())
    )


def make_server_certificate(
    public: ec.EllipticCurvePublicKey,
    hosts: Sequence[str],
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    *,
    days: int = SERVER_DAYS,
) -> x509.Certificate:
    """Return a certificate for the server under all names by which sites reach it; localhost and 127.0.0.1 are among them.

    Raises:
        ConfigError: If a host is neither a name nor an address.
    """
    names = [general_name(host) for host in dict.fromkeys([*hosts, "localhost", "127.0.0.1"])]
    return (
        _issued(_named(_SERVER_NAME), public, root, root_key, days)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(root_key, hashes.SHA384())
    )


def make_site_certificate(
    name: str,
    public: ec.EllipticCurvePublicKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    *,
    days: int = SITE_DAYS,
) -> x509.Certificate:
    """Return a certificate by which a site shows who it is."""
    return (
        _issued(_named(name), public, root, root_key, days)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(root_key, hashes.SHA384())
    )


def general_name(host: str) -> x509.GeneralName:
    """Return a host as certificates name it.

    Raises:
        ConfigError: If it is neither a name nor an address, such as one with a port or a scheme.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        labels = host.split(".")
        if (
            len(host) <= _MAX_HOST
            and host.isascii()
            and all(label and label.replace("-", "").isalnum() for label in labels)
        ):
            return x509.DNSName(host)
    problem = f"{host[:80]!r} is neither a host name nor an address; give it without scheme or port"
    raise ConfigError("--host", [problem])


def read_certificate(content: bytes, source: str, advice: str) -> x509.Certificate:
    """Read one certificate in PEM form.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return x509.load_pem_x509_certificate(content)
    except Exception:  # whatever the parser says, it is not a certificate
        raise ConfigError(source, [f"is not a certificate in PEM form; {advice}"]) from None


def pem_of(certificate: x509.Certificate) -> bytes:
    """Return a certificate in PEM form."""
    return certificate.public_bytes(Encoding.PEM)


def der_of(certificate: x509.Certificate) -> bytes:
    """Return a certificate in DER form, as TLS shows it."""
    return certificate.public_bytes(Encoding.DER)


def common_name(certificate: x509.Certificate) -> str:
    """Return the one common name of a certificate, or nothing."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def check_root(certificate: x509.Certificate, source: str) -> None:
    """See that a certificate can be the root of a federation.

    Raises:
        ConfigError: If it is not an authority's, or is out of date.
    """
    if not _is_authority(certificate):
        problem = (
            "is not an authority's certificate; the federation's root.crt is wanted, not a server's or site's"
        )
        raise ConfigError(source, [problem])
    _check_issuer(certificate, certificate, source)
    check_dates(certificate, source, "ask the federation's admin")


def check_server_certificate(
    certificate: x509.Certificate,
    root: x509.Certificate,
    public: ec.EllipticCurvePublicKey,
    hosts: Sequence[str],
    source: str,
) -> None:
    """See that sites will believe the server.

    Raises:
        ConfigError: If the certificate is another federation's, key's or host's, or is out of date.
    """
    advice = "`hilum admin renew` makes a new one"
    _check_issuer(certificate, root, source)
    _check_key(certificate, public, source, "the key beside it", advice)
    _check_purpose(certificate, ExtendedKeyUsageOID.SERVER_AUTH, source, "a server's")
    check_dates(certificate, source, advice)
    covered = covered_hosts(certificate)
    for host in hosts:
        if str(general_name(host).value) not in covered:
            problem = f"is for {', '.join(covered)}, not for {host}; `hilum admin renew --host {host}` makes one that is"
            raise ConfigError(source, [problem])


def check_site_certificate(
    certificate: x509.Certificate,
    root: x509.Certificate,
    public: ec.EllipticCurvePublicKey,
    source: str,
    other_key: str = _SEND_AGAIN,
) -> None:
    """See that a site's certificate is of this root, for this key, and good now.

    Args:
        certificate: The site's.
        root: The federation's.
        public: Of the key that lies at the site.
        source: Where the certificate was found, for messages.
        other_key: What to do where the certificate is for another key.

    Raises:
        ConfigError: With what does not fit.
    """
    _check_issuer(certificate, root, source)
    _check_key(certificate, public, source, "site.key here", other_key)
    _check_purpose(certificate, ExtendedKeyUsageOID.CLIENT_AUTH, source, "a site's")
    check_dates(certificate, source, _SEND_AGAIN)


def check_dates(certificate: x509.Certificate, source: str, advice: str) -> None:
    """See that a certificate is good now.

    Raises:
        ConfigError: If it has expired, or begins later: then most likely a clock is wrong.
    """
    now = dt.datetime.now(dt.UTC)
    if now > certificate.not_valid_after_utc:
        problem = (
            f"expired on {certificate.not_valid_after_utc:%Y-%m-%d at %H:%M} UTC, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M} UTC; {advice}"
        )
        raise ConfigError(source, [problem])
    if now < certificate.not_valid_before_utc:
        problem = (
            f"is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M} UTC; set the clock"
        )
        raise ConfigError(source, [problem])


def covered_hosts(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a server's certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def days_left(certificate: x509.Certificate) -> int:
    """Days until a certificate ends, to the nearest whole one; negative once it has."""
    return round((certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)) / dt.timedelta(days=1))


def _check_issuer(certificate: x509.Certificate, root: x509.Certificate, source: str) -> None:
    try:
        certificate.verify_directly_issued_by(root)
    except Exception:  # another name, another key, or an algorithm that the library refuses
        problem = (
            f"was not signed by this federation's root ({common_name(root)!r}); is it of another federation?"
        )
        raise ConfigError(source, [problem]) from None


def _check_key(
    certificate: x509.Certificate, public: ec.EllipticCurvePublicKey, source: str, holder: str, advice: str
) -> None:
    found: object = certificate.public_key()
    if not isinstance(found, ec.EllipticCurvePublicKey) or public_bytes(found) != public_bytes(public):
        spoken = (
            fingerprint(public_bytes(found)) if isinstance(found, ec.EllipticCurvePublicKey) else "other kind"
        )
        problem = (
            f"is for another key ({spoken}) than {holder} ({fingerprint(public_bytes(public))}); {advice}"
        )
        raise ConfigError(source, [problem])


def _check_purpose(
    certificate: x509.Certificate, purpose: x509.ObjectIdentifier, source: str, whose: str
) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usage = x509.ExtendedKeyUsage([])
    if purpose not in list(usage):
        raise ConfigError(source, [f"is not {whose} certificate; it was made for another purpose"])


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _issued(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.CertificateBuilder:
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    return (
        _builder(subject, root.subject, public, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(authority, critical=False)
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*wanted: str) -> x509.KeyUsage:
    return x509.KeyUsage(*(usage in wanted for usage in _USAGES))


def _named(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
