"""Fewer faces for a visual mesh, its texture and its shading kept.

Positions are decimated by quadric error (Garland and Heckbert 1997; package fast-simplification), which knows neither
texture coordinates nor normals. Each corner of a new face then takes both from the original corner nearest to it in
position and in orientation, and all three corners of a face from one chart of the texture, so that no new face
stretches across a seam.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

_AGGRESSIVENESS = 5.0  # 7 is the package's default: faster, visibly worse below a tenth of the faces
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


def decimate_mesh(mesh: TexturedMesh, max_faces: int) -> TexturedMesh:
    """Returns a mesh of about `max_faces` faces; the mesh itself when it has no more."""
    if len(mesh.faces) <= max_faces:
        return mesh
    # Scanned meshes repeat a vertex for each of its faces; only welded ones can collapse.
    welded, index = np.unique(mesh.vertices.astype(np.float32), axis=0, return_inverse=True)
    faces = index.reshape(-1)[mesh.faces]
    vertices, new_faces = fast_simplification.simplify(
        welded.astype(np.float64), faces.astype(np.int32), target_count=max_faces, agg=_AGGRESSIVENESS
    )
    new_faces = new_faces[_face_area(vertices, new_faces) > 0]
    if len(new_faces) == 0:
        return mesh
    charts = _charts(mesh)
    nearest = _nearest_corners(mesh, charts, vertices, new_faces)
    return TexturedMesh(
        vertices=vertices,
        faces=new_faces,
        normals=mesh.normals,
        face_normals=mesh.face_normals.reshape(-1)[nearest],
        texcoords=mesh.texcoords,
        face_texcoords=None if mesh.face_texcoords is None else mesh.face_texcoords.reshape(-1)[nearest],
    )


def _cross(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _face_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return np.linalg.norm(_cross(vertices, faces), axis=1) / 2


def _face_direction(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    cross = _cross(vertices, faces)
    return cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-20)


def _charts(mesh: TexturedMesh) -> np.ndarray:
    """Returns for each face the number of its texture chart: faces joined by shared texture coordinates."""
    if mesh.texcoords is None or mesh.face_texcoords is None:
        return np.zeros(len(mesh.faces), int)
    # A file that gives each corner a coordinate of its own still means one chart where values and places agree.
    keys = np.concatenate(
        [mesh.texcoords[mesh.face_texcoords.reshape(-1)], mesh.vertices[mesh.faces.reshape(-1)]], axis=1
    )
    _, corner = np.unique(keys.astype(np.float32), axis=0, return_inverse=True)
    corner = corner.reshape(-1, 3)
    n = int(corner.max()) + 1
    rows, columns = corner[:, [0, 1]].reshape(-1), corner[:, [1, 2]].reshape(-1)
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    return np.asarray(labels)[corner[:, 0]]


def _nearest_corners(
    mesh: TexturedMesh, charts: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """Returns int (F', 3): for each new corner the original corner to take attributes from."""
    size = float(np.ptp(mesh.vertices, axis=0).max())
    turn = _ORIENTATION_WEIGHT * size
    old_direction = _face_direction(mesh.vertices, mesh.faces)
    new_direction = _face_direction(vertices, faces)
    centres = cKDTree(np.concatenate([mesh.vertices[mesh.faces].mean(axis=1), turn * old_direction], axis=1))
    _, face = centres.query(np.concatenate([vertices[faces].mean(axis=1), turn * new_direction], axis=1))
    # Charts are kept apart by a coordinate of their own, far longer than the mesh.
    apart = 100.0 * size
    old = np.concatenate(
        [
            mesh.vertices[mesh.faces.reshape(-1)],
            turn * np.repeat(old_direction, 3, axis=0),
            apart * np.repeat(charts, 3)[:, None],
        ],
        axis=1,
    )
    new = np.concatenate(
        [
            vertices[faces.reshape(-1)],
            turn * np.repeat(new_direction, 3, axis=0),
            apart * np.repeat(charts[face], 3)[:, None],
        ],
        axis=1,
    )
    _, corner = cKDTree(old).query(new)
    return np.asarray(corner).reshape(-1, 3)
