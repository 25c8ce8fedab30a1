"""Bounds of whole numbers, looked at only where they have to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hilum.client.intake.pixels.value_range import ValueRange, is_constant

SOME = st.sampled_from([np.int8, np.uint8, np.int16, np.uint16, np.int32]).flatmap(
    lambda dtype: arrays.arrays(dtype, st.integers(1, 40))
)


@settings(deadline=None)
@given(values=SOME, low=st.integers(-40_000, 70_000), high=st.integers(-40_000, 70_000))
def test_within_is_what_the_extremes_say(values, low, high):
    assert ValueRange(values).within(low, high) == (low <= values.min() and values.max() <= high)
    assert ValueRange(values).within(int(values.min()), int(values.max()))
    assert not ValueRange(values).within(int(values.min()) + 1, int(values.max()))


def test_what_the_type_says_is_not_looked_for(monkeypatch):
    class Unread:
        dtype = np.dtype(np.uint16)

        def max(self):
            return 7

    assert ValueRange(Unread()).within(0, 7)  # it has no `min`
    assert ValueRange(Unread()).within(-1, 65_535)


@pytest.mark.parametrize("place", [0, 1, 2_000, 4_999])
def test_one_value_that_differs_is_found_wherever_it_lies(place):
    values = np.full((50, 100), 3, np.int16)
    assert is_constant(values)
    values.flat[place] = 4
    assert not is_constant(values)


def test_what_is_no_number_is_no_constant():
    assert not is_constant(np.full(5, np.nan, np.float32))
    assert not is_constant(np.zeros(0))
