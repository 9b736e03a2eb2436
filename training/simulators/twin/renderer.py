"""Pictures of many worlds on a few threads, each with a graphics context of its own.

Rendering releases the GIL, so threads are enough. Shadows and reflections are off and nothing is multi-sampled:
small pictures are bound by the vertices drawn. Software rendering (Mesa) and GPU go through EGL alike.
"""

import importlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock, local

# EGL needs no display. Mesa's own threads would compete with ours.
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")

import mujoco
import numpy as np

from rehearsal.errors import RehearsalError

_MAX_GEOMS = 400
_HIDDEN_GROUPS = (4, 5)


@dataclass
class _Canvas:
    """What one thread draws with."""

    gl: mujoco.GLContext
    context: mujoco.MjrContext
    scene: mujoco.MjvScene
    camera: mujoco.MjvCamera
    option: mujoco.MjvOption
    data: mujoco.MjData
    viewport: mujoco.MjrRect


class Renderer:
    """Draws square pictures of worlds given as (model copy, qpos)."""

    def __init__(self, model: mujoco.MjModel, side_px: int, threads: int) -> None:
        """Opens `threads` graphics contexts; raises RehearsalError when there is no OpenGL library."""
        self._model = model
        self._side_px = side_px
        self._local = local()
        self._opening = Lock()
        self._failure: RehearsalError | None = None
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="render")

    def render(
        self, models: Sequence[mujoco.MjModel], qpos: np.ndarray, camera_ids: Sequence[int]
    ) -> np.ndarray:
        """Returns uint8 (cameras, N, side, side, 3) of N worlds; qpos: (N, nq)."""
        pictures = np.empty((len(camera_ids), len(models), self._side_px, self._side_px, 3), np.uint8)
        bounds = np.linspace(0, len(models), self._threads + 1).astype(int)
        jobs = [
            self._pool.submit(self._draw, models[start:end], qpos[start:end], camera_ids, pictures[:, start:end])
            for start, end in zip(bounds[:-1], bounds[1:], strict=True)
            if end > start
        ]
        for job in jobs:
            job.result()
        return pictures

    def close(self) -> None:
        """Frees the contexts, each on the thread that made it."""
        for _ in range(self._threads):
            self._pool.submit(self._free)
        self._pool.shutdown(wait=True)

    def _free(self) -> None:
        canvas = getattr(self._local, "canvas", None)
        if canvas is not None:
            canvas.context.free()
            canvas.gl.free()
            self._local.canvas = None

    def _canvas(self) -> _Canvas:
        canvas: _Canvas | None = getattr(self._local, "canvas", None)
        if canvas is None:
            # One at a time, and none after a failure: MuJoCo would hang in the second one.
            with self._opening:
                if self._failure is not None:
                    raise self._failure
                canvas = self._local.canvas = self._open_canvas()
        return canvas

    def _open_canvas(self) -> _Canvas:
        try:
            # Not mujoco.GLContext: that was chosen when mujoco was first imported, perhaps before MUJOCO_GL was set.
            platform = importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL']}")
            gl = platform.GLContext(self._side_px, self._side_px)
            gl.make_current()
            self._model.vis.global_.offwidth = self._model.vis.global_.offheight = self._side_px
            context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as error:
            self._failure = RehearsalError(
                f"cannot open an OpenGL context with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}); "
                "on Debian or Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri"
            )
            raise self._failure from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        scene = mujoco.MjvScene(self._model, _MAX_GEOMS)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            scene.flags[flag] = 0
        option = mujoco.MjvOption()
        mujoco.mjv_defaultOption(option)
        option.geomgroup[:] = 1
        option.geomgroup[list(_HIDDEN_GROUPS)] = 0
        option.sitegroup[:] = 0
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        viewport = mujoco.MjrRect(0, 0, self._side_px, self._side_px)
        return _Canvas(gl, context, scene, camera, option, mujoco.MjData(self._model), viewport)

    def _draw(
        self, models: Sequence[mujoco.MjModel], qpos: np.ndarray, camera_ids: Sequence[int], pictures: np.ndarray
    ) -> None:
        canvas = self._canvas()
        upside_down = np.empty((self._side_px, self._side_px, 3), np.uint8)
        for i, model in enumerate(models):
            canvas.data.qpos[:] = qpos[i]
            mujoco.mj_kinematics(model, canvas.data)
            mujoco.mj_camlight(model, canvas.data)
            for c, camera_id in enumerate(camera_ids):
                canvas.camera.fixedcamid = camera_id
                mujoco.mjv_updateScene(
                    model, canvas.data, canvas.option, None, canvas.camera, mujoco.mjtCatBit.mjCAT_ALL, canvas.scene
                )
                mujoco.mjr_render(canvas.viewport, canvas.scene, canvas.context)
                mujoco.mjr_readPixels(upside_down, None, canvas.viewport, canvas.context)
                pictures[c, i] = upside_down[::-1]
