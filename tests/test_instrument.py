"""The angle and the scattering vector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import constants

import grfsaxs_lib as gx
from grfsaxs_lib.measurement.instrument import (
    CU_K_ALPHA,
    CU_K_ALPHA_1,
    CU_K_ALPHA_2,
    scattering_angle,
    scattering_vector,
)


@pytest.mark.parametrize("wavelength, energy", [(CU_K_ALPHA_1, 8047.823), (CU_K_ALPHA_2, 8027.842)])
def test_wavelengths_are_the_tabulated_energies(wavelength, energy):
    in_nm = constants.h * constants.c / (energy * constants.e) * 1e9
    assert wavelength == pytest.approx(in_nm, rel=5e-7)  # seven digits are given


def test_mean_line_lies_a_third_of_the_way():
    assert (CU_K_ALPHA - CU_K_ALPHA_1) / (CU_K_ALPHA_2 - CU_K_ALPHA_1) == pytest.approx(1 / 3, rel=1e-9)


@given(st.floats(1e-4, 180), st.floats(0.01, 10))
def test_round_trip(two_theta, wavelength):
    q = scattering_vector(two_theta, wavelength)
    angle = scattering_angle(min(q, 4 * np.pi / wavelength), wavelength)
    # Near 180 degrees the arcsine is steep: an ulp of q becomes its root in the angle.
    assert angle == pytest.approx(two_theta, rel=1e-12, abs=2e-6)


def test_round_trip_of_the_papers_q():
    np.testing.assert_allclose(scattering_vector(scattering_angle(gx.PAPER_Q)), gx.PAPER_Q, rtol=1e-14)


@pytest.mark.parametrize("two_theta, q", [(60, 2 * np.pi), (180, 4 * np.pi), (90, 4 * np.pi / np.sqrt(2))])
def test_known_angles(two_theta, q):
    assert scattering_vector(two_theta, 1.0) == pytest.approx(q, rel=1e-15)


def test_bragg_reflection_of_silicon():
    # The (111) planes, 0.313560 nm apart, reflect Cu K-alpha-1 at 28.442 degrees (NIST SRM 640).
    assert scattering_angle(2 * np.pi / 0.313560, CU_K_ALPHA_1) == pytest.approx(28.442, abs=1e-3)


@pytest.mark.parametrize("two_theta", [0, -1, 180.1, np.nan, [10, np.inf]])
def test_angle_out_of_range(two_theta):
    with pytest.raises(ValueError, match=r"two_theta must lie in \(0, 180\] degrees"):
        scattering_vector(two_theta)


@pytest.mark.parametrize("two_theta", [np.ma.masked_equal([1.0, 2.0], 2.0), "1", True, 1j])
def test_angles_are_plain_numbers(two_theta):
    with pytest.raises(ValueError, match="^two_theta"):
        scattering_vector(two_theta)


@pytest.mark.parametrize("q", [0, -1, np.nan, [1, np.inf]])
def test_q_out_of_range(q):
    with pytest.raises(ValueError, match="q must lie in"):
        scattering_angle(q)


def test_q_beyond_backward_scattering():
    with pytest.raises(ValueError, match="ends at 4\\*pi/wavelength = 12.57"):
        scattering_angle(12.6, 1.0)


@pytest.mark.parametrize("wavelength", [0, -1, np.nan, np.inf])
@pytest.mark.parametrize("function", [scattering_angle, scattering_vector])
def test_wavelength_out_of_range(function, wavelength):
    with pytest.raises(ValueError, match="wavelength must be a positive length in nm"):
        function(1.0, wavelength)
