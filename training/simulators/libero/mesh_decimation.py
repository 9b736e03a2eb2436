"""Fewer faces for a visual mesh, its texture and its shading kept.

Positions are decimated by quadric error (Garland and Heckbert 1997; package fast-simplification), which knows neither
texture coordinates nor normals. Each corner of a new face then takes both from the original corner nearest to it in
position, in orientation and in place on the texture, so that no new face stretches across a seam.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
from scipy.spatial import cKDTree

_AGGRESSIVENESS = 3.0  # the package's 7 needs twice the faces for the same distance
_WELD_M = 2e-5
_REDUCTION = 0.7
_STUCK = 0.95  # a soup of loose sheets hardly shrinks any more
_FEWEST_FACES = 12
_PROBES = 10_000
_DIRECTIONS = 128
_CORNER_TOLERANCE = 4.0  # times the tolerance of a surface
_SAMPLES = 8000
_CANDIDATES = 4
_SEAM_WEIGHT = 0.1  # of a length on the texture, against a length in space
_ORIENTATION_WEIGHT = (
    0.1  # turning a corner by 1 rad counts as much as moving it by a tenth of the mesh's size
)


@dataclass(frozen=True, kw_only=True)
class TexturedMesh:
    """Triangles whose corners index positions, normals and texture coordinates apart, as in OBJ and MuJoCo.

    vertices: (V, 3) [m]; faces: int (F, 3); normals: (N, 3); face_normals: int (F, 3) into `normals`;
    texcoords: (T, 2) or None; face_texcoords: int (F, 3) into `texcoords` or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    face_normals: np.ndarray
    texcoords: np.ndarray | None
    face_texcoords: np.ndarray | None


def decimate_mesh(mesh: TexturedMesh, tolerance_m: float, max_faces: int) -> TexturedMesh:
    """Returns a mesh of few faces that lies within about `tolerance_m` of the original's vertices.

    A mesh that would still have more than `max_faces` goes beyond the tolerance: a woven basket, a bundle of sheets.
    """
    # Scanned meshes repeat a vertex for each of its faces; only welded ones can collapse.
    cell = np.round((mesh.vertices - mesh.vertices.min(axis=0)) / _WELD_M).astype(np.int64)
    # One number a vertex, three times 21 bits: rows of numbers would be sorted a hundred times as slowly.
    _, first, index = np.unique(cell @ (1 << np.array([42, 21, 0])), return_index=True, return_inverse=True)
    welded = mesh.vertices[first].astype(np.float64)
    welded_faces = index.reshape(-1)[mesh.faces]
    vertices, faces = _decimate(
        welded, welded_faces[_face_area(welded, welded_faces) > 0], tolerance_m, max_faces
    )
    if len(faces) == len(mesh.faces):
        return mesh
    nearest = _nearest_corners(mesh, vertices, faces)
    return TexturedMesh(
        vertices=vertices,
        faces=faces,
        normals=mesh.normals,
        face_normals=mesh.face_normals.reshape(-1)[nearest],
        texcoords=mesh.texcoords,
        face_texcoords=None if mesh.face_texcoords is None else mesh.face_texcoords.reshape(-1)[nearest],
    )


def _decimate(
    vertices: np.ndarray, faces: np.ndarray, tolerance_m: float, max_faces: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coarsest of a row of ever coarser meshes that keeps the tolerance, or the first of `max_faces`."""
    original = vertices[:: max(1, len(vertices) // _PROBES)]
    best = (vertices, faces)
    while len(best[1]) > _FEWEST_FACES:
        count = int(len(best[1]) * _REDUCTION)
        v, f = fast_simplification.simplify(
            best[0], best[1].astype(np.int32), target_count=count, agg=_AGGRESSIVENESS
        )
        f = f[_face_area(v, f) > 0]
        if not 0 < len(f) < _STUCK * len(best[1]):
            break
        if len(best[1]) <= max_faces and (
            _distance(original, v, f) > tolerance_m
            or _shrinkage(vertices, v) > _CORNER_TOLERANCE * tolerance_m
        ):
            break
        best = (v, f)
    return best


def _distance(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> float:
    """Returns how far from the surface 98 % of `points` lie [m]: to the planes of the faces nearest them."""
    rng = np.random.default_rng(0)
    area = _face_area(vertices, faces)
    chosen = np.concatenate([np.arange(len(faces)), rng.choice(len(faces), _SAMPLES, p=area / area.sum())])
    weights = rng.dirichlet((1.0, 1.0, 1.0), len(chosen))
    samples = np.einsum("nk,nkd->nd", weights, vertices[faces[chosen]])
    gap, nearest = cKDTree(samples).query(points, k=_CANDIDATES)
    direction = _face_direction(vertices, faces)[chosen[nearest]]
    offset = np.abs(np.einsum("nkd,nkd->nk", points[:, None] - samples[nearest], direction))
    # A plane passes near points far outside its triangle: those count by the distance to the sample.
    near = gap < 4 * np.sqrt(area.sum() / _SAMPLES)
    return float(np.percentile(np.where(near, offset, gap).min(axis=1), 98))


def _shrinkage(points: np.ndarray, vertices: np.ndarray) -> float:
    """Returns the most by which the outline lost reach in any of many directions [m]: a box has lost a corner."""
    direction = np.random.default_rng(0).normal(size=(_DIRECTIONS, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return float(((points @ direction.T).max(axis=0) - (vertices @ direction.T).max(axis=0)).max())


def _cross(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _face_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return np.linalg.norm(_cross(vertices, faces), axis=1) / 2


def _face_direction(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    cross = _cross(vertices, faces)
    return cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-20)


def _nearest_corners(mesh: TexturedMesh, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns int (F', 3): for each new corner the original corner to take attributes from."""
    turn = _ORIENTATION_WEIGHT * float(np.ptp(mesh.vertices, axis=0).max())
    old_direction = turn * _face_direction(mesh.vertices, mesh.faces)
    new_direction = turn * _face_direction(vertices, faces)
    corners = mesh.vertices[mesh.faces.reshape(-1)]
    old = [corners, np.repeat(old_direction, 3, axis=0)]
    new = [vertices[faces.reshape(-1)], np.repeat(new_direction, 3, axis=0)]
    if mesh.texcoords is not None and mesh.face_texcoords is not None:
        # The place on the texture that the middle of the new face has: its corners must come from around there.
        centres = cKDTree(np.concatenate([mesh.vertices[mesh.faces].mean(axis=1), old_direction], axis=1))
        _, face = centres.query(np.concatenate([vertices[faces].mean(axis=1), new_direction], axis=1))
        place = _SEAM_WEIGHT * _metres_per_texture(mesh) * mesh.texcoords
        old.append(place[mesh.face_texcoords.reshape(-1)])
        new.append(np.repeat(place[mesh.face_texcoords[face]].mean(axis=1), 3, axis=0))
    _, corner = cKDTree(np.concatenate(old, axis=1)).query(np.concatenate(new, axis=1))
    return np.asarray(corner).reshape(-1, 3)


def _metres_per_texture(mesh: TexturedMesh) -> float:
    """Returns the length [m] on the surface of one unit of texture coordinates."""
    assert mesh.texcoords is not None and mesh.face_texcoords is not None
    flat = np.pad(mesh.texcoords, ((0, 0), (0, 1)))
    area = float(_face_area(flat, mesh.face_texcoords).sum())
    return float(np.sqrt(_face_area(mesh.vertices, mesh.faces).sum() / max(area, 1e-12)))
