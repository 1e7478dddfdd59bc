"""Tests of grfsaxs_lib.rendering: colours, outlines, the scale, and a turn."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from grfsaxs_lib import plotting, rendering

VIEW = rendering.View()


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_rendered_phases_have_their_colours():
    """A ball of one phase: its hue is that of the phase, and nothing outside its outline is painted."""
    x = np.arange(32) - 15.5
    ball = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < 12**2
    radius_of_ball = (3 * ball.sum() / (4 * np.pi)) ** (1 / 3)
    for phase in (1, 2):
        pixels = rendering.render_structure(np.where(ball, phase, 0), voxel_size=1.0)
        assert pixels.min() >= 0 and pixels.max() <= 1
        painted = (pixels < 1).any(axis=2)
        # A ball is a disc from every side. The filter of one voxel moves its surface in by sigma^2 / radius.
        radius = (radius_of_ball - 1 / radius_of_ball) * len(pixels) / (len(x) * 2 * VIEW.half_size[1])
        assert painted.sum() == pytest.approx(np.pi * radius**2, rel=0.01)
        for axis in (0, 1):
            assert painted.any(axis=axis).sum() == pytest.approx(2 * radius, rel=0.02)  # it is made of voxels
        middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
        hue = np.array(to_rgb(plotting.PHASE_COLOURS[phase]))
        np.testing.assert_allclose(middle / middle.max(), hue / hue.max(), atol=0.01)


def test_a_rendered_cube_is_cut_flat():
    """A layer above a solid: three faces of one colour each, and the hexagon of a cube in parallel projection."""
    phases = np.full((16, 16, 16), 2)
    phases[8:] = 1
    pixels = rendering.render_structure(phases, voxel_size=1.0)
    right, up = np.abs(VIEW.plane).T
    hexagon = 2 * (right[0] * up[1] + right[1] * up[0] + right[1] * up[2] + right[0] * up[2]) / 2
    width, height = 2 * VIEW.half_size
    assert (pixels < 1).any(axis=2).mean() == pytest.approx(hexagon / (width * height), rel=0.01)
    colours, counts = np.unique(pixels.reshape(-1, 3).round(6), axis=0, return_counts=True)
    assert (counts > 0.02 * pixels.shape[0] * pixels.shape[1]).sum() == 6  # white, top, and two of each other face


def test_a_structure_has_its_scale(ax):
    image = rendering.plot_structure(ax, np.ones((8, 8, 8)), voxel_size=0.5)
    low, high = image.get_extent()[2:]
    assert high - low == pytest.approx(4 * 2 * VIEW.half_size[1])
    line, words = ax.texts
    assert words.get_text() == "4 nm"
    # An edge along y, in parallel projection.
    length = np.hypot(*np.subtract(line.xy, line.xyann))
    assert length == pytest.approx(4 * np.sqrt(1 - VIEW.camera[1] ** 2))


@pytest.mark.parametrize("phases", [np.zeros((4, 4, 4)), np.ones((4, 4)), np.ones((4, 4, 5))])
def test_what_cannot_be_rendered(phases):
    with pytest.raises(ValueError, match="must be a cube that is not all pore"):
        rendering.render_structure(phases, voxel_size=1.0)


def test_a_cube_turns():
    """Four views of a cube whose sides are layer, in the order of the sides; the size stays."""
    phases = np.full((12, 12, 12), 2)
    phases[:, :, :4] = 1  # x is the last axis
    picture = Image.open(io.BytesIO(rendering.turn_structure(phases, voxel_size=1.0, n_view=4)))
    assert picture.n_frames == 4 and picture.info["duration"] == 2000
    blue, painted = [], []
    for number in range(4):
        picture.seek(number)
        pixels = np.asarray(picture.convert("RGB")).astype(float)
        painted.append((pixels < 255).any(axis=2).sum())
        blue.append((pixels[..., 2] > 1.1 * pixels[..., 0]).sum() / painted[-1])
    assert min(blue[2:]) > 2 * max(blue[:2])  # seen from -36, 54, 144 and 234 degrees
    assert painted == pytest.approx([painted[0]] * 4, rel=0.02)


def test_a_cube_seen_from_in_front():
    """Along an axis no ray crosses the planes of that axis; here a turn has such a view."""
    picture = Image.open(io.BytesIO(rendering.turn_structure(np.ones((8, 8, 8)), voxel_size=1.0, n_view=10)))
    picture.seek(1)  # from 0 degrees
    assert (np.asarray(picture.convert("RGB")) < 255).any(axis=2).mean() > 0.3
