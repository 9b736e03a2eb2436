"""LIBERO's pictures against the stock environment's, in the same process."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from training.policies.openvla.image_pipeline import centre_crop, jpeg_round_trip, lanczos, prepare
from training.policies.openvla.options import OpenVLAOptions
from training.simulators.libero.fast_model import HIDDEN_GROUP
from training.simulators.libero.mesh_decimation import TexturedMesh, decimate_mesh
from training.simulators.libero.package import libero_task
from training.simulators.libero.pictures import Pictures
from training.simulators.libero.scene import LiberoScene, load_scene
from training.simulators.libero.scene_builder import stock_environment

TASK = libero_task("libero_spatial", 0)
SIDE_PX = 256
CAMERAS = {"agentview": "agentview_image", "wrist": "robot0_eye_in_hand_image"}


@pytest.fixture(scope="module")
def exact() -> LiberoScene:
    return load_scene(TASK, "exact")


@pytest.fixture(scope="module")
def fast() -> LiberoScene:
    return load_scene(TASK, "fast")


@pytest.fixture(scope="module")
def qpos(exact: LiberoScene) -> np.ndarray:
    """Returns (4, nq): stored states, two of them with the arm elsewhere, the last with the stove on."""
    model, rng = exact.model, np.random.default_rng(0)
    found = TASK.stored_states()[[0, 20, 40, 49], 1 : 1 + model.nq].copy()
    arm = model.joint("robot0_joint1").qposadr[0] + np.arange(7)
    found[1, arm] += rng.uniform(-0.3, 0.3, 7)
    found[3, arm] += rng.uniform(-0.3, 0.3, 7)
    (stove,) = exact.record.indicators
    found[3, model.joint(stove.joint).qposadr[0]] = stove.threshold + 0.1
    return found


@pytest.fixture(scope="module")
def stock(exact: LiberoScene, qpos: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Returns camera -> uint8 (4, 256, 256, 3), as the stock environment observes: upside down."""
    options: dict[str, Any] = {"has_offscreen_renderer": True, "use_camera_obs": True}
    with stock_environment(TASK, camera_heights=SIDE_PX, camera_widths=SIDE_PX, **options) as env:
        seen = []
        for row in qpos:
            seen.append(env.set_init_state(np.concatenate([[0.0], row, np.zeros(exact.model.nv)])))
        yield {camera: np.stack([one[name] for one in seen]) for camera, name in CAMERAS.items()}


def draw(scene: LiberoScene, qpos: np.ndarray) -> dict[str, np.ndarray]:
    worlds = []
    for row in qpos:
        data = mujoco.MjData(scene.model)
        data.qpos[:] = row
        worlds.append(SimpleNamespace(scene=scene, data=data))
    pictures = Pictures(list(CAMERAS), SIDE_PX, threads=2)
    try:
        return pictures.draw(worlds)
    finally:
        pictures.close()


def test_exact_pictures_are_the_stock_camera_s_turned_upright(
    exact: LiberoScene, qpos: np.ndarray, stock: dict[str, np.ndarray]
) -> None:
    ours = draw(exact, qpos)
    for camera in CAMERAS:
        np.testing.assert_array_equal(ours[camera], stock[camera][:, ::-1])
    colour = ours["agentview"].astype(int)
    glowing = ((colour[..., 0] - colour[..., 1]) > 90).sum(axis=(1, 2))
    assert glowing[3] > glowing[:3].max() + 50  # the stove that is on shows it


def test_openvla_sees_the_stock_camera_s_turned_by_180_degrees(
    exact: LiberoScene, qpos: np.ndarray, stock: dict[str, np.ndarray]
) -> None:
    """Published checkpoints were trained on these; the way up of a picture costs all of their success."""
    ours = draw(exact, qpos)
    for camera in CAMERAS:
        turned = np.stack([jpeg_round_trip(image) for image in stock[camera][:, ::-1, ::-1]])
        seen = prepare(ours[camera], 224, mirror=OpenVLAOptions().mirror, resize_first=False)
        np.testing.assert_array_equal(seen, centre_crop(lanczos(turned, 224)))


def test_fast_pictures_are_near_the_stock_camera_s(
    fast: LiberoScene, qpos: np.ndarray, stock: dict[str, np.ndarray]
) -> None:
    ours = draw(fast, qpos)
    for camera in CAMERAS:
        error = ours[camera].astype(float) - stock[camera][:, ::-1]
        psnr_db = 10 * np.log10(255**2 / (error**2).mean(axis=(1, 2, 3)))
        assert psnr_db.mean() >= 30 and psnr_db.min() >= 28, (camera, psnr_db)


def test_a_picture_does_not_depend_on_what_was_drawn_before(fast: LiberoScene, qpos: np.ndarray) -> None:
    forwards, backwards = draw(fast, qpos), draw(fast, qpos[::-1])
    for camera in CAMERAS:
        np.testing.assert_array_equal(forwards[camera], backwards[camera][::-1])


def test_decimation_leaves_the_physics_alone(exact: LiberoScene, fast: LiberoScene) -> None:
    assert fast.model.nmeshface < exact.model.nmeshface / 3
    hidden = fast.model.geom_group == HIDDEN_GROUP
    assert 0 < hidden.sum() < 30 and not fast.model.geom_contype[hidden].any()
    ends = []
    for scene in (exact, fast):
        model, data = scene.model, mujoco.MjData(scene.model)
        flags = model.opt.enableflags
        model.opt.enableflags = exact.model.opt.enableflags  # without sleep, which the settings differ in
        data.qpos[:] = TASK.stored_states()[0, 1 : 1 + model.nq]
        data.ctrl[:] = 0.1 * model.actuator_ctrlrange[:, 1]
        for _ in range(300):
            mujoco.mj_step(model, data)
        model.opt.enableflags = flags
        ends.append(np.concatenate([data.qpos, data.qvel]))
    np.testing.assert_array_equal(ends[0], ends[1])


def ball(rings: int) -> TexturedMesh:
    """Returns a unit ball of 2 rings^2 faces; texture coordinates are (longitude, latitude), with a seam."""
    longitude, latitude = np.meshgrid(np.linspace(0, 1, 2 * rings + 1), np.linspace(0.02, 0.98, rings + 1))
    theta, phi = np.pi * latitude.reshape(-1), 2 * np.pi * longitude.reshape(-1)
    points = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    row, column = np.divmod(np.arange(rings * 2 * rings), 2 * rings)
    a = row * (2 * rings + 1) + column
    b, c, d = a + 1, a + 2 * rings + 1, a + 2 * rings + 2
    faces = np.concatenate([np.stack([a, c, b], axis=1), np.stack([b, c, d], axis=1)])
    texcoords = np.stack([longitude.reshape(-1), latitude.reshape(-1)], axis=1)
    return TexturedMesh(
        vertices=points,
        faces=faces,
        normals=points,
        face_normals=faces,
        texcoords=texcoords,
        face_texcoords=faces,
    )


def test_a_decimated_ball_keeps_shape_shading_and_texture() -> None:
    mesh = ball(60)
    small = decimate_mesh(mesh, tolerance_m=0.01, max_faces=10**6)
    assert len(small.faces) < len(mesh.faces) / 4
    assert np.abs(np.linalg.norm(small.vertices, axis=1) - 1).max() < 0.03
    corners = small.vertices[small.faces]
    assert (np.linalg.norm(small.normals[small.face_normals] - corners, axis=2)).max() < 0.2
    assert small.texcoords is not None and small.face_texcoords is not None
    place = small.texcoords[small.face_texcoords]
    # No face reaches across the seam, from longitude 1 to longitude 0.
    assert np.ptp(place[..., 0], axis=1).max() < 0.5
    theta = np.arccos(corners[..., 2].clip(-1, 1)) / np.pi
    assert np.abs(place[..., 1] - theta).max() < 0.1
