"""What the walker learns of one file is forgotten before the next test."""

import pytest

from hilum.client.intake.headers import element_headers


@pytest.fixture(autouse=True)
def nothing_learnt():
    element_headers.encoding_of.cache_clear()
