import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

from hilum.common.weights import (
    GRID_BITS,
    MAX_ABS_CHANGE,
    Manifest,
    apply_update,
    difference,
    limit_norm,
    sha256_of,
)
from hilum.server.federation.aggregators.accumulator import FixedPointMean

floats = st.floats(-4, 4, width=32)
vectors = numpy_arrays(np.float32, 5, elements=floats)


def test_flatten_and_unflatten_are_inverse():
    weights = {"b.x": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.float32([7])}
    manifest = Manifest.of(weights)
    flat = manifest.flatten(weights)
    assert flat.tolist() == [7, 0, 1, 2, 3, 4, 5]
    assert all(np.array_equal(manifest.unflatten(flat)[name], weights[name]) for name in weights)


def test_a_manifest_refuses_other_weights():
    manifest = Manifest.of({"a": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="names and shapes"):
        manifest.flatten({"a": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="expected 2 values"):
        manifest.unflatten(np.zeros(3, np.float32))


def test_the_hash_depends_on_name_shape_and_every_bit():
    base = {"a": np.zeros((2, 3), np.float32)}
    others = [
        {"b": np.zeros((2, 3), np.float32)},
        {"a": np.zeros((3, 2), np.float32)},
        {"a": np.array([[0, 0, 0], [0, 0, -0.0]], np.float32)},
    ]
    assert len({sha256_of(weights) for weights in [base, *others]}) == 4
    assert sha256_of(base) == sha256_of({"a": np.zeros((2, 3), ">f4")})


@given(vectors, vectors)
def test_a_difference_lies_on_the_grid_and_leads_to_the_new_weights(before, after):
    update = difference(after, before)
    scaled = np.ldexp(update.astype(np.float64), GRID_BITS)
    assert np.array_equal(scaled, np.rint(scaled))
    moved = apply_update(before, update)
    spacing = np.maximum(np.spacing(np.abs(after)), np.spacing(np.abs(update)))
    assert np.all(np.abs(moved.astype(np.float64) - after) <= np.maximum(2.0**-GRID_BITS, spacing))


def test_a_change_beyond_reason_is_clipped():
    assert difference(np.float32([1e6]), np.float32([0])).tolist() == [MAX_ABS_CHANGE]


@given(vectors, st.floats(0.01, 10))
def test_a_limited_update_is_within_its_norm_and_points_the_same_way(update, bound):
    limited = limit_norm(difference(update, np.zeros_like(update)), bound)
    assert np.linalg.norm(limited.astype(np.float64)) <= bound
    assert np.all(limited * update >= 0)


@settings(max_examples=50)
@given(st.lists(st.tuples(vectors, st.integers(1, 10_000)), min_size=2, max_size=4))
def test_the_mean_has_the_same_bits_for_every_order_and_is_exact(parts):
    updates = [(difference(update, np.zeros_like(update)), weight) for update, weight in parts]
    means = []
    for order in itertools.permutations(updates):
        total = FixedPointMean(5, 10_000 * len(updates))
        for update, weight in order:
            total.add(update, weight)
        means.append(total.mean().tobytes())
    assert len(set(means)) == 1
    weights = sum(weight for _, weight in updates)
    exact = [sum(Fraction(float(u[i])) * w for u, w in updates) / weights for i in range(5)]
    found = np.frombuffer(means[0])
    assert all(
        abs(Fraction(float(f)) - e) <= abs(e) * Fraction(1, 2**51) for f, e in zip(found, exact, strict=True)
    )


@given(vectors, vectors, st.integers(1, 1_000_000))
def test_the_mean_of_one_update_is_that_update(before, after, weight):
    update = difference(after, before)
    mean = FixedPointMean(5, 1_000_000)
    mean.add(update, weight)
    assert apply_update(before, mean.mean()).tobytes() == apply_update(before, update).tobytes()


def test_an_update_knows_one_zero():
    tiny = np.float32([-(2.0**-52), -0.0, 0.0])
    update = difference(tiny, np.float32([-0.0, 0.0, -0.0]))
    limited = limit_norm(np.float32([3.0, -(2.0**-40)]), 1.0)
    assert update.tolist() == [0, 0, 0]
    assert limited[1] == 0
    assert not np.signbit(np.concatenate([update, limited])).any()


def test_a_mean_by_hand():
    mean = FixedPointMean(2, 4)
    mean.add(np.float32([1.0, -2.0]), 1)
    mean.add(np.float32([3.0, 2.0]), 3)
    assert mean.mean().tolist() == [2.5, 1.0]


def test_no_sum_can_overflow_and_no_weight_slips_by():
    most = 1000 * 2**20
    mean = FixedPointMean(1, most)
    mean.add(np.float32([MAX_ABS_CHANGE]), most)
    assert mean.mean().tolist() == [MAX_ABS_CHANGE]
    with pytest.raises(ValueError, match="exceeds the bound"):
        mean.add(np.float32([0.0]), 1)
    with pytest.raises(ValueError, match="no update"):
        FixedPointMean(1, 1).mean()


def test_long_vectors_are_what_their_parts_are():
    """They are worked on in parts, of which the last one is shorter."""
    rng = np.random.default_rng(0)
    before, after = rng.standard_normal((2, 40_001)).astype(np.float32)
    ways = {
        "difference": lambda place: difference(after[place], before[place]),
        "sum": lambda place: apply_update(before[place], after[place]),
    }
    for way in ways.values():
        pieces = [way(slice(start, start + 999)) for start in range(0, 40_001, 999)]
        assert way(slice(None)).tobytes() == np.concatenate(pieces).tobytes()
    limited = limit_norm(after, 1.0)
    assert 0.9999 < np.linalg.norm(limited.astype(float)) <= 1
    assert np.abs(limited / after * np.linalg.norm(after.astype(float)) - 1).max() < 1e-4
