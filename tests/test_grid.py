"""Lattices in real and reciprocal space."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grfsaxs_lib.grid import PAPER_GRID, PAPER_Q, Grid, check_grid, check_q

even_sizes = st.integers(4, 300).map(lambda half: 2 * half)
lengths = st.floats(1e-3, 1e3)


@pytest.mark.parametrize("size", [8, 10, 16, 30])
def test_shell_counts_by_brute_force(size):
    axis = range(-size // 2, size // 2)
    squares = [i * i + j * j + k * k for i, j, k in itertools.product(axis, repeat=3)]
    np.testing.assert_array_equal(Grid(size, 1.0).shell_counts, np.bincount(squares))


@pytest.mark.parametrize("size", [8, 14, 96, 128])
def test_shells_hold_every_mode_once(size):
    counts = Grid(size, 1.0).shell_counts
    assert counts.size == 3 * (size // 2) ** 2 + 1
    assert counts.sum() == size**3
    # Only (0, 0, 0) lies at the centre and only (-N/2, -N/2, -N/2) in the far corner.
    assert (counts[0], counts[1], counts[-1]) == (1, 6, 1)


def test_shell_counts_are_shared_so_they_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        Grid(8, 1.0).shell_counts[0] = 0


@given(even_sizes, lengths)
def test_wave_numbers_are_eq_2_in_fft_order(size, voxel_size):
    i = np.fft.ifftshift(np.arange(-size // 2, size // 2))
    # Four roundings in either expression: 8 units in the last place.
    np.testing.assert_allclose(
        Grid(size, voxel_size).wave_numbers, 2 * np.pi * i / (size * voxel_size), rtol=8 * np.finfo(float).eps
    )


@given(even_sizes, lengths)
def test_nyquist_is_half_the_size_times_the_spacing(size, voxel_size):
    grid = Grid(size, voxel_size)
    assert math.isclose(grid.q_nyquist, size / 2 * grid.q_spacing, rel_tol=1e-15 * 8)
    assert math.isclose(grid.q_spacing * grid.box_length, 2 * np.pi, rel_tol=1e-15 * 8)


def test_the_grid_and_the_q_of_the_paper():
    assert PAPER_GRID == Grid(512, 0.5)
    assert PAPER_GRID.box_length == 256
    assert PAPER_GRID.intensity_scale == 1
    assert PAPER_Q.shape == (500,)
    assert (PAPER_Q[0], PAPER_Q[-1]) == (0.04, 3.0)
    # Equidistant up to the rounding of numbers of size 3.
    np.testing.assert_allclose(np.diff(PAPER_Q), 2.96 / 499, atol=3 * np.finfo(float).eps)
    with pytest.raises(ValueError, match="read-only"):
        PAPER_Q[0] = 1


@given(even_sizes, lengths, st.integers(2, 5))
def test_intensity_scale_undoes_box_and_voxel(size, voxel_size, factor):
    # |F|^2 of one material grows as L^3 / voxel_size^6.
    def expected_power(grid):
        return grid.box_length**3 / grid.voxel_size**6

    one, other = Grid(size, voxel_size), Grid(2 * size, voxel_size / factor)
    ratio = expected_power(one) * one.intensity_scale / (expected_power(other) * other.intensity_scale)
    assert math.isclose(ratio, 1, rel_tol=1e-14)  # about 40 roundings


def test_equal_grids_share_the_cached_averages():
    assert Grid(np.int64(64), 1) == Grid(64, 1.0)
    assert hash(Grid(np.int64(64), 1)) == hash(Grid(64, 1.0))
    assert type(Grid(np.int64(64), 1).size) is int


@given(
    st.one_of(
        st.integers(max_value=7),
        st.integers(4, 10**6).map(lambda half: 2 * half + 1),
        st.floats(),
        st.booleans(),
        st.none(),
        st.sampled_from(["64", [64], (64, 64, 64)]),
    )
)
def test_bad_sizes(size):
    with pytest.raises(ValueError, match="^size must be an even integer of at least 8; got "):
        Grid(size, 1.0)


@given(
    st.one_of(
        st.floats(max_value=0),
        st.sampled_from([np.nan, np.inf]),
        st.none(),
        st.sampled_from(["wide", 1j]),
        st.lists(st.floats(1, 2), min_size=2, max_size=3),
    )
)
def test_bad_voxel_sizes(voxel_size):
    with pytest.raises(ValueError, match="^voxel_size must be a positive length in nm; got "):
        Grid(64, voxel_size)


@given(st.lists(st.floats(1e-6, np.pi), min_size=1, max_size=20, unique=True))
def test_good_q_pass(q):
    np.testing.assert_array_equal(check_q(sorted(q), Grid(8, 1.0)), sorted(q))


@given(
    st.lists(st.floats(0.01, 3.0), min_size=1, max_size=8, unique=True),
    st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf, "repeat", "reverse"]),
    st.integers(0, 8),
)
def test_bad_q(q, fault, place):
    q = sorted(q)
    place %= len(q)
    if fault == "reverse":
        q = [4.0, *q]
    elif fault == "repeat":
        q.insert(place, q[place])
    else:
        q[place] = fault
    with pytest.raises(ValueError, match="^q must (be finite and positive|increase strictly)"):
        check_q(q)


@pytest.mark.parametrize("q", [[], 1.0, [[0.1, 0.2]], None, "q", [0.1, "q"], [0.1, 2j], [True], {}], ids=str)
def test_what_is_no_list_of_q(q):
    with pytest.raises(ValueError, match="^q must be a one-dimensional, non-empty array of numbers"):
        check_q(q)


@pytest.mark.parametrize("grid", [64, None, (64, 1.0), "grid"])
def test_what_is_no_grid(grid):
    assert check_grid(PAPER_GRID) is PAPER_GRID
    with pytest.raises(ValueError, match="^grid must be a Grid, such as .*; got "):
        check_grid(grid)


@given(even_sizes, lengths)
def test_q_stops_at_nyquist(size, voxel_size):
    grid = Grid(size, voxel_size)
    check_q([grid.q_nyquist / 2, grid.q_nyquist], grid)
    with pytest.raises(ValueError, match="resolves only q <= pi/voxel_size"):
        check_q([grid.q_nyquist / 2, np.nextafter(grid.q_nyquist, np.inf)], grid)
