"""Where pieces of a volume begin, and what is cut out."""

import itertools

import numpy as np
import pytest

from hilum.common.preparation.pieces import MAX_PIECES, covering_origins, cut_out, grid_shape, random_origins

CELL = (8, 8, 8)
NONE = np.zeros(0, np.int32)


def all_cells(shape):
    return np.arange(np.prod(grid_shape(shape, CELL)), dtype=np.int32)


def test_a_piece_is_what_lies_there():
    volume = np.random.default_rng(0).integers(0, 65_535, (9, 10, 11)).astype(np.uint16)
    assert np.array_equal(cut_out(volume, np.array([[2, 3, 4]]), (5, 6, 7))[0], volume[2:7, 3:9, 4:11])


def test_outside_of_the_volume_is_the_lowest_value_of_the_piece():
    volume = np.random.default_rng(0).integers(100, 65_535, (4, 10, 10)).astype(np.uint16)
    piece = cut_out(volume, np.array([[-2, 0, 3]]), (8, 5, 9))[0]
    assert np.array_equal(piece[2:6, :, :7], volume[:, :5, 3:])
    rest = np.ones(piece.shape, bool)
    rest[2:6, :, :7] = False
    assert set(piece[rest].tolist()) == {volume[:, :5, 3:].min()}


@pytest.mark.parametrize("shape", [(100, 90, 80), (41, 40, 300)])
def test_a_random_piece_lies_in_the_volume_and_has_its_cell_in_its_middle_half_where_it_can(shape):
    size, cell = (32, 32, 32), np.array([3 * 8, 2 * 8, 2 * 8])
    grid = grid_shape(shape, CELL)
    chosen = np.array([np.ravel_multi_index((3, 2, 2), grid)], np.int32)
    drawn = np.random.default_rng(0).random((500, 7))
    origins = random_origins(shape, chosen, CELL, size, drawn)
    assert np.all(origins >= 0)
    assert np.all(origins + size <= shape)
    at_an_edge = (origins == 0) | (origins == np.array(shape) - size)
    inside = (origins + 8 - 8 <= cell + 8 - 8) & (origins + 32 - 8 >= cell)
    assert np.all(inside | at_an_edge)
    assert len(np.unique(origins, axis=0)) > 50


def test_a_volume_smaller_than_a_piece_lies_in_its_middle():
    drawn = np.random.default_rng(0).random((20, 7))
    origins = random_origins((5, 40, 20), all_cells((5, 40, 20)), CELL, (32, 32, 32), drawn)
    assert set(origins[:, 0]) == {-14}
    assert set(origins[:, 2]) == {-6}
    assert len(set(origins[:, 1])) > 3
    assert covering_origins((5, 40, 20), all_cells((5, 40, 20)), CELL, (32, 32, 32)).tolist() == [
        [-14, 0, -6],
        [-14, 8, -6],
    ]


def test_pieces_are_drawn_where_the_volume_shows_something():
    shape = (64, 64, 64)
    corner = np.array([np.ravel_multi_index((7, 7, 7), grid_shape(shape, CELL))], np.int32)
    drawn = np.random.default_rng(0).random((50, 7))
    assert random_origins(shape, corner, CELL, (16, 16, 16), drawn).min() >= 40
    anywhere = random_origins(shape, NONE, CELL, (16, 16, 16), drawn)
    assert anywhere.min() < 20
    assert anywhere.max() > 30


def test_the_grid_covers_every_voxel_of_a_volume_that_shows_something_all_over():
    shape, size = (50, 33, 20), (16, 16, 16)
    seen = np.zeros(shape, int)
    for origin in covering_origins(shape, all_cells(shape), CELL, size):
        assert np.all(origin >= 0)
        assert np.all(origin + size <= shape)
        seen[tuple(slice(begin, begin + edge) for begin, edge in zip(origin, size, strict=True))] += 1
    assert seen.min() == 1


def test_the_grid_leaves_out_air_and_has_at_most_so_many_pieces():
    shape, size = (128, 128, 128), (16, 16, 16)
    assert len(covering_origins(shape, all_cells(shape), CELL, size)) == MAX_PIECES
    grid = grid_shape(shape, CELL)
    half = np.array(
        [np.ravel_multi_index(cell, grid) for cell in itertools.product(range(2), range(4), range(16))],
        np.int32,
    )
    origins = covering_origins(shape, half, CELL, size)
    assert origins.max(0).tolist() == [0, 16, 112]
    assert len(origins) == 2 * 8
    assert len(covering_origins(shape, NONE, CELL, size)) == MAX_PIECES, "of one that shows nothing, any"
