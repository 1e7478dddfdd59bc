r"""From the angle on the instrument to the scattering vector and back, section 2.1.

Elastic scattering by the angle :math:`2\theta` changes the wave vector by

.. math:: q = \frac{4\pi}{\lambda} \sin\theta .

The simulation knows q only; this is where a measured pattern meets it.
"""

import numpy as np

from ..parameters import as_numbers, check

# Deslattes et al. (2003), Rev. Mod. Phys. 75, 35, doi:10.1103/RevModPhys.75.35: 8047.823 and 8027.842 eV.
CU_K_ALPHA_1 = 0.1540593  # nm
CU_K_ALPHA_2 = 0.1544427  # nm
# A laboratory mirror passes both lines, and the first is twice as bright.
CU_K_ALPHA = (2 * CU_K_ALPHA_1 + CU_K_ALPHA_2) / 3  # 0.15419 nm


def scattering_vector(two_theta, wavelength=CU_K_ALPHA):
    r"""Magnitude of the scattering vector at an angle, :math:`q = 4\pi \sin(\theta)/\lambda`.

    Parameters
    ----------
    two_theta : array_like
        Scattering angle :math:`2\theta`, in (0, 180] [degree].
    wavelength : float
        Wavelength :math:`\lambda` [nm]; the mean of Cu K-alpha by default.

    Returns
    -------
    float or ndarray of float64
        q [nm\ :sup:`-1`].

    Raises
    ------
    ValueError
        If an angle or the wavelength is out of range.
    """
    two_theta = as_numbers("two_theta", two_theta)
    if not ((two_theta > 0) & (two_theta <= 180)).all():
        raise ValueError(f"two_theta must lie in (0, 180] degrees; got {two_theta}")
    return 4 * np.pi / _check_wavelength(wavelength) * np.sin(np.deg2rad(two_theta / 2))


def scattering_angle(q, wavelength=CU_K_ALPHA):
    r"""Angle at which a scattering vector is measured, :math:`2\theta = 2\arcsin(q\lambda/4\pi)`.

    Parameters
    ----------
    q : array_like
        Magnitude of the scattering vector, in (0, :math:`4\pi/\lambda`] [nm\ :sup:`-1`].
    wavelength : float
        Wavelength :math:`\lambda` [nm]; the mean of Cu K-alpha by default.

    Returns
    -------
    float or ndarray of float64
        :math:`2\theta` [degree].

    Raises
    ------
    ValueError
        If a q is not positive, the wavelength does not reach it, or the wavelength is out of range.
    """
    q = check("q", q)
    q_backward = 4 * np.pi / _check_wavelength(wavelength)
    if (q > q_backward).any():
        raise ValueError(
            f"q reaches {np.max(q):g} nm^-1, but a wavelength of {wavelength:g} nm ends at "
            f"4*pi/wavelength = {q_backward:.4g} nm^-1"
        )
    return 2 * np.rad2deg(np.arcsin(q / q_backward))


def _check_wavelength(wavelength):
    wavelength = float(wavelength)
    if not 0 < wavelength < np.inf:
        raise ValueError(f"wavelength must be a positive length in nm; got {wavelength!r}")
    return wavelength
