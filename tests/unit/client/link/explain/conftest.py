"""Every line that explains why the link does not work, each provoked for real on loopback."""

import pytest

from federation_papers import Papers

PROXIES = ("https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def papers(tmp_path):
    return Papers(tmp_path / "federation")
