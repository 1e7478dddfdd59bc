"""Pictures of structures in three dimensions, without a graphics card: one picture, or one that turns.

A ray for each pixel goes through the smoothed indicator function of layer and solid, to its first crossing of 1/2.
Faces of the cube are lit evenly. Inner surfaces are shaded by their angle to the light, by the shadow of what lies in
its way, and by ambient occlusion, that is the share of matter in front of them.
"""

import io
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage

from .plotting import PHASE_COLOURS

_N_PIXEL = 850  # along the height of the picture in a printed column, but at most eight a voxel
_COLOURS = [np.array(to_rgb(colour)) for colour in PHASE_COLOURS[1:]]  # of layer and solid
_TURN = 350  # pixels along the longer edge of the picture that turns


@dataclass(frozen=True)
class View:
    """Where a viewer stands who looks at a cube in parallel projection, with the light from above on the left.

    Attributes
    ----------
    azimuth, elevation : float
        [degree]
    """

    azimuth: float = -36.0
    elevation: float = 27.0

    @property
    def camera(self):
        """Direction towards the viewer, with axes x, y, z."""
        return _direction(self.azimuth, self.elevation)

    @property
    def light(self):
        """Direction towards the light."""
        return _direction(self.azimuth - 19, 52)

    @property
    def plane(self):
        """(3, 2) ndarray: directions to the right and upwards in the picture."""
        right = _direction(self.azimuth + 90, 0)
        return np.column_stack([right, np.cross(self.camera, right)])

    @property
    def half_size(self):
        """Half the width and height of the picture of a cube of edge 1."""
        return np.abs(self.plane).sum(axis=0) / 2


def _direction(azimuth, elevation):
    a, e = np.radians([azimuth + 1e-6, elevation])  # no component is 0: a ray crosses all six planes of a cube
    return np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])


def render_structure(phases, *, voxel_size):
    """Render a cube of a structure.

    Parameters
    ----------
    phases : (N, N, N) array_like of int
        0 pore, 1 layer, 2 solid, with axes z, y, x.
    voxel_size : float
        Voxel edge [nm].

    Returns
    -------
    (n, m, 3) ndarray of float64
        Red, green and blue in [0, 1]: the smallest rectangle around the projected cube, for `Axes.imshow`.

    Raises
    ------
    ValueError
        If `phases` is not a three-dimensional cube, or holds nothing but pore.
    """
    scene, view = _Scene(phases, voxel_size), View()
    n = len(scene.matter)
    return scene.render(view, min(_N_PIXEL, 8 * n) / (2 * view.half_size[1] * n))


def plot_structure(ax, phases, *, voxel_size):
    """Show a cube of a structure, rendered by `render_structure`, with the length of its edge: figure 2.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    phases, voxel_size
        As in `render_structure`.

    Returns
    -------
    matplotlib.image.AxesImage
    """
    view, edge = View(), len(phases) * voxel_size
    width, height = view.half_size
    extent = edge * np.array([-width, width, -height, height])
    drawn = ax.imshow(render_structure(phases, voxel_size=voxel_size), extent=extent, interpolation="antialiased")
    # The scale: a line below the lower right edge, parallel to it and as long.
    ends = edge * (np.array([[0.5, -0.5, -0.57], [0.5, 0.5, -0.57]]) @ view.plane)
    line = {"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "shrinkA": 0, "shrinkB": 0, "linewidth": 0.8}
    ax.annotate("", *ends, arrowprops=line)
    angle = np.degrees(np.arctan2(*(ends[1] - ends[0])[::-1]))
    words = {"rotation": angle, "rotation_mode": "anchor", "ha": "center", "va": "top"}
    ax.annotate(f"{edge:g} nm", ends.mean(axis=0), (1, -3), textcoords="offset points", fontsize=7, **words)
    ax.set_ylim(ends[:, 1].min() - 0.03 * edge, None)
    ax.set_axis_off()
    return drawn


def turn_structure(phases, *, voxel_size, n_view):
    """Render a cube of a structure that turns once about the vertical.

    Parameters
    ----------
    phases, voxel_size
        As in `render_structure`.
    n_view : int
        Pictures of one turn of eight seconds.

    Returns
    -------
    bytes
        An animated PNG, which every browser shows, with and without a kernel.
    """
    from PIL import Image

    scene, frames = _Scene(phases, voxel_size), []
    resolution = _TURN / (1.6 * len(scene.matter))  # the cube is up to 1.53 edges high, and 1.42 wide
    for azimuth in View().azimuth + 360 * np.arange(n_view) / n_view:
        pixels = Image.fromarray((255 * scene.render(View(azimuth), resolution)).round().astype(np.uint8))
        frame = Image.new("RGB", (_TURN, _TURN), "white")
        frame.paste(pixels, ((_TURN - pixels.width) // 2, (_TURN - pixels.height) // 2))
        frames.append(frame)
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], duration=8000 / n_view, loop=0)
    return file.getvalue()


class _Scene:
    """The smoothed volumes of a structure, with axes x, y, z."""

    def __init__(self, phases, voxel_size):
        phases = np.asarray(phases).T
        if phases.ndim != 3 or len(set(phases.shape)) != 1 or not phases.any():
            raise ValueError(f"phases must be a cube that is not all pore; got shape {phases.shape}")
        filtered = ndimage.gaussian_filter
        self.matter, self.solid = (filtered(part.astype(np.float32), 1.0) for part in (phases != 0, phases == 2))
        self.widths = np.array([2, 4, 8]) / voxel_size  # length scales of 2, 4 and 8 nm
        self.near = [filtered(self.matter, width, mode="constant") for width in self.widths]

    def render(self, view, resolution):
        """(n, m, 3) ndarray: the picture, with so many pixels along the edge of a voxel."""
        camera, light = view.camera, view.light
        shape, rays, entries, faces, lengths = _rays_into_cube(len(self.matter), view, resolution)
        depths = _first_crossing(self.matter, entries, -camera, lengths)
        seen = np.isfinite(depths)
        positions = entries[seen] - depths[seen, np.newaxis] * camera
        normals, cut = np.eye(3)[faces[seen]] * np.sign(camera), depths[seen] == 0
        normals[~cut] = _outward_normals(self.matter, positions[~cut])
        shade = 0.64 + 0.45 * (normals @ light).clip(0)
        shade[~cut] = self._inner_shade(positions[~cut], normals[~cut], light)
        behind = np.where(cut[:, np.newaxis], positions, positions - normals)  # one voxel below an inner surface
        share = (3 * _look_up(self.solid, behind) - 1).clip(0, 1)[:, np.newaxis]  # layer to solid, over a voxel
        layer, sand = _COLOURS
        pixels = np.ones((np.prod(shape), 3))
        pixels[rays[seen]] = shade[:, np.newaxis] * (layer + share * (sand - layer))
        # The mean of 2 x 2 rays smooths the edges.
        return pixels.reshape(shape[0] // 2, 2, shape[1] // 2, 2, 3).mean(axis=(1, 3)).clip(0, 1)

    def _inner_shade(self, positions, normals, light):
        """Brightness (n,) of inner surfaces: light, shadow and ambient occlusion."""
        above = positions + normals
        lengths = np.where(light > 0, len(self.matter) - above, -above) / light
        lit = np.isinf(_first_crossing(self.matter, above, light, lengths.min(axis=1), step=1.5))
        occlusion = np.mean(
            [
                _look_up(matter, positions + 1.5 * width * normals)
                for matter, width in zip(self.near, self.widths, strict=True)
            ],
            axis=0,
        )
        towards = (normals @ light).clip(0) * np.where(lit, 0.5, 0.3)
        return (0.6 + towards) * (1.05 - 1.2 * occlusion).clip(0.15, 1)


def _rays_into_cube(n, view, resolution):
    """Shape of the picture, and of each ray that meets a cube of n voxels: index, entry, axis of its face, length."""
    width, height = n * view.half_size
    rows, columns = (4 * max(1, round(half * resolution)) for half in (height, width))
    right = np.linspace(-width, width, 2 * columns + 1)[1::2]
    up = np.linspace(height, -height, 2 * rows + 1)[1::2]
    points = np.stack(np.meshgrid(right, up), axis=-1).reshape(-1, 2) @ view.plane.T + n / 2
    near = np.where(view.camera > 0, n, 0)
    crossings = (near - points) / view.camera
    entry = crossings.min(axis=1)
    lengths = entry - ((n - near - points) / view.camera).max(axis=1)
    rays = np.flatnonzero(lengths > 0)
    entries = points[rays] + entry[rays, np.newaxis] * view.camera
    return (rows, columns), rays, entries, crossings[rays].argmin(axis=1), lengths[rays]


def _look_up(volume, positions):
    """Values of a volume at positions (n, 3) [voxel] from its corner; beyond its faces it stays constant."""
    return ndimage.map_coordinates(volume, positions.T - 0.5, order=1, mode="nearest")


def _first_crossing(matter, starts, direction, lengths, step=0.7):
    """Distance from each start along a direction to the first point where matter exceeds 1/2; infinite for none."""
    distances = np.full(len(starts), np.inf)
    before = _look_up(matter, starts)
    distances[before > 0.5] = 0.0
    left, reach = np.flatnonzero(before <= 0.5), 0.0
    while left.size:
        reach += step
        left = left[lengths[left] > reach]
        now = _look_up(matter, starts[left] + reach * direction)
        hit = now > 0.5
        found = left[hit]
        distances[found] = reach - step * (now[hit] - 0.5) / (now[hit] - before[found])
        before[left] = now
        left = left[~hit]
    return distances


def _outward_normals(matter, positions):
    """Unit vectors (n, 3) against the gradient of matter."""
    slopes = [_look_up(matter, positions - one) - _look_up(matter, positions + one) for one in np.eye(3)]
    normals = np.stack(slopes, axis=1)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
