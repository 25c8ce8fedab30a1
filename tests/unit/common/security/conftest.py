"""A federation's root and study key, and a site that is approved by them."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from hilum.common.security.certificates import make_root, make_site_certificate
from hilum.common.security.keys import new_key
from hilum.common.security.link_file import LinkFile
from hilum.common.security.requests import read_request
from hilum.common.signing import public_text


@pytest.fixture
def root_key():
    return new_key()


@pytest.fixture
def root(root_key):
    return make_root(root_key, "Hilum federation test")


@pytest.fixture
def study_key():
    return public_text(ed25519.Ed25519PrivateKey.generate().public_key())


@pytest.fixture
def approve(root, root_key, study_key):
    """The admin's part, in a line: a link file for the request that lies in a folder."""

    def run(folder, path, **changes):
        request = read_request((folder / "site.csr").read_bytes(), "site.csr")
        facts = {
            "server": "federation.example:9443",
            "study_key": study_key,
            "root": root,
            "certificate": make_site_certificate(request.name, request.public_key, root, root_key),
        }
        LinkFile(**{**facts, **changes}).write(path)
        return path

    return run
