"""Batches that a thread gathers ahead of who takes them."""

import threading
import time

import numpy as np
import pytest
import torch

from hilum.client.pretraining.prefetch import AHEAD, Gathering, prefetched
from hilum.client.views import unit_of

CPU = torch.device("cpu")


def gathering(number, begun=None, problem=None):
    def into(out):
        if begun is not None:
            begun.append(number)
        if problem is not None:
            raise problem
        out[:] = number

    return Gathering((2, 1, 3), into, np.array([number, number, number + 1]))


def threads():
    return [one for one in threading.enumerate() if one.name == "prefetch"]


def test_batches_come_in_order_with_their_values_and_patients():
    with prefetched((gathering(n) for n in range(7)), CPU) as batches:
        found = list(batches)
    assert [int(one.stored[0, 0, 0]) for one in found] == list(range(7))
    assert [one.patients.tolist() for one in found] == [[n, n, n + 1] for n in range(7)]
    assert all(one.stored.shape == (2, 1, 3) and one.stored.dtype == torch.int16 for one in found)


def test_the_bits_of_uint16_pass_through_int16():
    values = np.array([0, 1, 32_767, 32_768, 65_535], np.uint16)
    one = Gathering((5,), lambda out: np.copyto(out, values), np.zeros(5, np.int64))
    with prefetched([one], CPU) as batches:
        assert torch.allclose(
            unit_of(next(batches).stored), torch.from_numpy(values.astype(np.float32)) / 65_535
        )


def test_it_gathers_so_far_ahead_and_no_further():
    begun = []
    with prefetched((gathering(n, begun) for n in range(50)), CPU) as batches:
        next(batches)
        for _ in range(3000):
            if len(begun) == AHEAD + 2:
                break
            time.sleep(0.01)
        time.sleep(0.05)
        assert begun == list(range(AHEAD + 2)), "one is taken, two wait, one is in the thread's hands"


def test_what_cannot_be_gathered_is_raised_where_it_is_taken_and_not_before():
    one = [gathering(0), gathering(1, problem=IndexError("a row is out of bounds")), gathering(2)]
    with prefetched(one, CPU) as batches:
        assert int(next(batches).stored[0, 0, 0]) == 0
        with pytest.raises(IndexError, match="out of bounds"):
            next(batches)


def test_its_thread_ends_with_the_context_however_that_ends():
    def stop_early():
        with prefetched((gathering(n) for n in range(50)), CPU) as batches:
            next(batches)
            assert threads()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_early()
    assert not threads()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_ring_of_buffers_on_a_gpu_mixes_no_batches():
    device = torch.device("cuda", 0)
    many = 40

    def large(number):
        return Gathering((64, 1, 128, 128), lambda out: out.fill(number), np.full(64, number))

    sums = []
    with prefetched((large(n) for n in range(many)), device) as batches:
        for one in batches:
            sums.append(one.stored.long().sum() + one.patients.sum())
            torch.cuda._sleep(1_000_000)  # the device is slower than the thread
    assert [int(one) for one in sums] == [n * 64 * (128 * 128 + 1) for n in range(many)]
