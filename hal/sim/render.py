"""Camera pictures of the table scene without OpenGL: boxes, drawn far to near with anti-aliased polygons.

Exact in geometry (pinhole projection, sub-pixel vertices), plain in light (one lamp, flat faces, flat shadows).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from hal.sim.scene import Look

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

_NEAR_M = 0.004
_GUARD = 8  # pictures beside the picture, to each side, that polygons are cut off at
_SHIFT = 4  # OpenCV's fixed-point bits for sub-pixel vertices
_CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
_FACES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
_NORMALS = np.array([[-1.0, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])
_TABLE_HALF_M = 0.9
_TILE_M = 0.06
_DARK_TILES = np.array([[r, c] for r in range(-5, 6) for c in range(-5, 6) if (r + c) % 2 == 0], dtype=np.float64)
_SKY = np.array([0.80, 0.84, 0.88])


@dataclass(frozen=True, slots=True)
class Solid:
    """A box to draw: rotation (3, 3), centre (3,), half edges (3,), RGB colour 0..1."""

    rotation: Array
    centre: Array
    half: Array
    colour: Array
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """A pinhole camera. Columns of `rotation` are right, down and forward in the world."""

    rotation: Array
    origin: Array
    width: int
    height: int
    vertical_fov_rad: float


def looking(forward: Array, up: Array) -> Array:
    """(3, 3) camera rotation (right, down, forward) that looks along `forward` with `up` upwards."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, up)
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def render(view: Viewpoint, solids: list[Solid], look: Look, noise: NDArray[np.int8] | None = None) -> Image:
    """Draw solids on the table.

    Args:
        view: where from, and the size of the picture.
        solids: what to draw, in any order.
        look: light and table.
        noise: (H, W, 3) added at the end, or None.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    picture = np.empty((view.height, view.width, 3), dtype=np.uint8)
    picture[:] = (_SKY * 255).astype(np.uint8)
    light = np.array(look.light_direction) / np.linalg.norm(look.light_direction)
    brightness = look.ambient + look.diffuse * light[2]
    _fill_all(picture, view, *_table(look, brightness, view))
    corners = [(solid.half * _CORNERS) @ solid.rotation.T + solid.centre for solid in solids]
    shadow = np.clip(np.array(look.table) * look.ambient, 0, 1)
    for solid, points in zip(solids, corners, strict=True):
        if solid.shadow:
            flat = points - light * (points[:, 2:] / light[2])
            hull = cv2.convexHull(flat[:, :2].astype(np.float32))[:, 0].astype(np.float64)
            _fill_all(picture, view, np.column_stack([hull, np.full(len(hull), 1e-4)])[None], shadow[None])
    if solids:
        _fill_all(picture, view, *_sorted_faces(solids, corners, light, look, view.origin))
    if noise is not None:
        cv2.add(picture, noise, picture, dtype=cv2.CV_8U)
    return picture


def _table(look: Look, brightness: float, view: Viewpoint) -> tuple[Array, Array]:
    """The table top and, near the camera, every other tile a little darker, so that motion is visible."""
    base = np.clip(np.array(look.table) * brightness, 0, 1)
    middle = np.round(view.origin[:2] / (2 * _TILE_M)) * 2 * _TILE_M
    corners = middle + _DARK_TILES * _TILE_M
    half = _TABLE_HALF_M
    tiles = np.clip(corners[:, None] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * _TILE_M, -half, half)
    top = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    flat = np.concatenate([top[None], tiles])
    polygons = np.concatenate([flat, np.zeros((len(flat), 4, 1))], axis=2)
    colours = np.tile(base * 0.93, (len(flat), 1))
    colours[0] = base
    return polygons, colours


def _sorted_faces(
    solids: list[Solid], corners: list[Array], light: Array, look: Look, eye: Array
) -> tuple[Array, Array]:
    """(N, 4, 3) faces that look at the eye, furthest first, and their (N, 3) colours."""
    polygons = np.stack(corners)[:, _FACES]  # (solids, 6, 4, 3)
    normals = np.einsum("fk,njk->nfj", _NORMALS, np.stack([solid.rotation for solid in solids]))  # (solids, 6, 3)
    middles = polygons.mean(axis=2)
    visible = ((eye - middles) * normals).sum(axis=2) > 0
    shade = look.ambient + look.diffuse * np.clip(normals @ light, 0, None)
    colours = np.clip(np.stack([solid.colour for solid in solids])[:, None] * shade[..., None], 0, 1)
    order = np.argsort(-np.linalg.norm(middles - eye, axis=2)[visible])
    return polygons[visible][order], colours[visible][order]


def _fill_all(picture: Image, view: Viewpoint, polygons: Array, colours: Array) -> None:
    """Draw (N, K, 3) convex polygons of world points in their order, with (N, 3) colours."""
    points = (polygons - view.origin) @ view.rotation
    planes = _planes(view)
    hidden: NDArray[np.bool_] = points @ planes[:, :3].T < planes[:, 3]  # (N, K, 5)
    crossed: NDArray[np.bool_] = np.any(hidden, axis=1)
    cut: NDArray[np.bool_] = np.any(crossed, axis=1)
    fixed = _pixels(np.where(cut[:, None, None], 1.0, points), view)
    size = np.array([view.width, view.height]) << _SHIFT
    off_picture: NDArray[np.bool_] = np.any((fixed.max(axis=1) < 0) | (fixed.min(axis=1) > size), axis=1) & ~cut
    outside: NDArray[np.bool_] = np.any(np.all(hidden, axis=1), axis=1) | off_picture
    shades = (colours * 255).astype(int).tolist()
    for index in np.flatnonzero(~outside):
        outline = _pixels(_clipped(points[index], planes[crossed[index]]), view) if cut[index] else fixed[index]
        if len(outline):
            cv2.fillConvexPoly(picture, outline, shades[index], lineType=cv2.LINE_AA, shift=_SHIFT)


def _focal(view: Viewpoint) -> float:
    return float(0.5 * view.height / np.tan(view.vertical_fov_rad / 2))


def _pixels(points: Array, view: Viewpoint) -> NDArray[np.int32]:
    """(..., 2) fixed-point pixels of (..., 3) points in the camera's frame."""
    pixels = points[..., :2] / points[..., 2:] * _focal(view) + [view.width / 2 - 0.5, view.height / 2 - 0.5]
    fixed: NDArray[np.int32] = np.round(pixels * (1 << _SHIFT)).astype(np.int32)
    return fixed


def _planes(view: Viewpoint) -> Array:
    """(5, 4) planes: a point p of the camera's frame is inside of one where p @ plane[:3] >= plane[3].

    The near plane, and four sides far outside the picture: within them pixels fit OpenCV's fixed-point numbers.
    """
    side = _GUARD * max(view.width, view.height) / _focal(view)
    sides = [[-1.0, 0.0, side, 0.0], [1.0, 0.0, side, 0.0], [0.0, -1.0, side, 0.0], [0.0, 1.0, side, 0.0]]
    return np.array([[0.0, 0.0, 1.0, _NEAR_M], *sides])


def _clipped(points: Array, planes: Array) -> Array:
    """(M, 3) the part of a convex polygon (camera frame) inside the planes; may be empty.

    Sutherland and Hodgman, Reentrant polygon clipping, 1974; without NumPy, which is slow for four corners.
    """
    corners: list[list[float]] = points.tolist()
    for x, y, z, least in planes.tolist():
        depths = [corner[0] * x + corner[1] * y + corner[2] * z - least for corner in corners]
        kept = []
        for i, (corner, depth) in enumerate(zip(corners, depths, strict=True)):
            if (depth >= 0) != (depths[i - 1] >= 0):
                share = depth / (depth - depths[i - 1])
                kept.append([a + share * (b - a) for a, b in zip(corner, corners[i - 1], strict=True)])
            if depth >= 0:
                kept.append(corner)
        corners = kept
    return np.array(corners).reshape(-1, 3)
