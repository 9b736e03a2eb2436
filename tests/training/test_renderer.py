"""The renderer's short cuts, on a small scene with a mirror, a pane of glass and things out of sight."""

import mujoco
import numpy as np
import pytest

from training.simulators.renderer import PictureStyle, Renderer, View

SCENE = """
<mujoco>
  <visual><quality offsamples="0"/><map znear="0.01"/></visual>
  <asset><material name="mirror" reflectance="0.6" rgba="0.3 0.3 0.3 1"/></asset>
  <worldbody>
    <light pos="0 0 3"/>
    <camera name="still" pos="0 -2 1.2" xyaxes="1 0 0 0 0.5 0.86"/>
    <geom type="box" size="1 1 0.05" pos="0 0 -0.05" material="mirror"/>
    <geom type="box" size="0.1 0.1 0.4" pos="-0.3 0.3 0.4" rgba="0.1 0.5 0.8 1"/>
    <geom type="sphere" size="0.2" pos="0 -9 0.5" rgba="1 0 0 1"/>
    <site name="lamp" pos="0.3 0.5 0.02" size="0.1" rgba="1 0 0 1"/>
    <site name="other" pos="-0.6 0 0.1" size="0.1" rgba="0 1 0 1"/>
    <body name="ball" pos="0 0.2 0.3">
      <joint type="slide" axis="1 0 0"/>
      <geom type="sphere" size="0.2" rgba="0.9 0.7 0.1 1" mass="1"/>
      <camera name="riding" pos="0 0 1" xyaxes="1 0 0 0 1 0"/>
    </body>
    <body name="high" pos="0 1.5 2">
      <joint type="slide" axis="1 0 0"/>
      <geom type="box" size="0.3 0.3 0.1" rgba="0.2 0.8 0.2 1" mass="1"/>
    </body>
    {pane}
  </worldbody>
</mujoco>
"""
PANE = """
    <body name="pane" pos="0.1 -0.4 0.4">
      <joint type="slide" axis="1 0 0"/>
      <geom type="box" size="0.2 0.01 0.2" rgba="0.2 0.2 0.9 0.4" mass="1"/>
    </body>
"""
QPOS = np.array([[-0.4, 0.0, 0.0], [0.0, 0.2, 0.1], [0.35, -0.2, -0.1]])


def draw(model: mujoco.MjModel, style: PictureStyle, sites: tuple[int, ...] = ()) -> np.ndarray:
    cameras = [model.camera("still").id, model.camera("riding").id]
    renderer = Renderer(96, 2, style)
    try:
        views = [View(model=model, qpos=q[: model.nq], cameras=cameras, sites=sites) for q in QPOS]
        return renderer.render(views)
    finally:
        renderer.close()


@pytest.mark.parametrize("reflections", [True, False])
def test_geoms_that_no_picture_shows_can_be_left_out(reflections: bool) -> None:
    model = mujoco.MjModel.from_xml_string(SCENE.format(pane=PANE))
    whole = draw(model, PictureStyle(reflections=reflections))
    np.testing.assert_array_equal(draw(model, PictureStyle(reflections=reflections, cull=True)), whole)


def test_a_thing_that_only_the_mirror_shows_is_kept() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE.format(pane=""))
    style = PictureStyle(reflections=True, cull=True)
    before = draw(model, style)
    model.geom_rgba[model.body("high").geomadr[0]] = (1, 0, 1, 1)
    changed = (draw(model, style)[0] != before[0]).any(axis=-1)
    assert changed.sum() > 50


def test_a_background_drawn_once_gives_the_same_picture() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE.format(pane=""))
    model.mat_reflectance[:] = 0.0
    whole = draw(model, PictureStyle())
    np.testing.assert_array_equal(draw(model, PictureStyle(keep_background=True, cull=True)), whole)
    assert len(np.unique(whole[0].reshape(len(QPOS), -1), axis=0)) == len(QPOS)


def test_a_moving_pane_of_glass_shows_what_stands_behind_it() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE.format(pane=PANE))
    model.mat_reflectance[:] = 0.0
    whole = draw(model, PictureStyle()).astype(int)
    kept = draw(model, PictureStyle(keep_background=True)).astype(int)
    assert np.abs(kept - whole).max() <= 2


def test_only_the_sites_asked_for_are_shown() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE.format(pane=""))
    model.mat_reflectance[:] = 0.0
    lamp = (model.site("lamp").id,)
    dark = draw(model, PictureStyle(keep_background=True))
    for style in (PictureStyle(), PictureStyle(keep_background=True), PictureStyle(cull=True)):
        lit = draw(model, style, lamp)
        new = (lit[0] != dark[0]).any(axis=-1)
        assert new.any() and (lit[0][new][:, 0] > lit[0][new][:, 1]).all()  # red, not green


def test_pictures_are_upright() -> None:
    model = mujoco.MjModel.from_xml_string(SCENE.format(pane=""))
    picture = draw(model, PictureStyle())[0, 0].astype(int)
    yellow = (picture[..., 0] > 100) & (picture[..., 2] < 60)
    rows = np.flatnonzero(yellow.any(axis=1))
    table = np.flatnonzero((np.abs(picture - picture[-1, 48]) < 40).all(axis=-1).any(axis=1))
    assert rows.mean() < table.mean()  # the ball is above the table's near edge
