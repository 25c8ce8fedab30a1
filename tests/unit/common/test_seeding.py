import pytest

from hilum.common.seeding import derive, generator


def test_a_seed_depends_on_every_part_and_its_type():
    parts = [("a", 1), ("a", "1"), ("a1",), (1, "a"), ("a", 1, "b"), ()]
    assert len({derive(7, *p) for p in parts} | {derive(8, "a", 1)}) == len(parts) + 1


def test_a_seed_is_the_same_on_every_machine():
    assert derive(7, "site-0", "round", 3) == 6031667230338059911


def test_a_generator_repeats():
    assert generator(1, "x").random(3).tolist() == generator(1, "x").random(3).tolist()


def test_seeds_fit_torch():
    torch = pytest.importorskip("torch")
    for index in range(200):
        torch.Generator().manual_seed(derive(0, index))
