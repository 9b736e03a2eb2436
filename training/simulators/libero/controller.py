"""Operational-space control of the arm, compiled: robosuite's OSC_POSE with the settings that LIBERO uses.

The law is Khatib's (1987): forces on position and orientation errors, decoupled by the task-space inertias, plus a
posture in the null space. Departures from robosuite 1.4 are numerical alone: symmetric positive definite systems are
solved by Cholesky factors where it inverts by singular values, and the Jacobian is taken from MuJoCo's joint axes. A
goal is relative to where the end effector is when the command arrives.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from training.simulators.libero.actions import POSITION_STEP_M, ROTATION_STEP_RAD

STIFFNESS = 150.0
"""kp of position [1/s^2] and of orientation; damping is critical."""
POSTURE_STIFFNESS = 10.0
"""kp of the posture in the null space [1/s^2]."""
GRIPPER_STEP = 0.01
"""Share of half its range that a finger's target moves in one substep."""

_DAMPING = 2.0 * np.sqrt(STIFFNESS)
_POSTURE_DAMPING = 2.0 * np.sqrt(POSTURE_STIFFNESS)
JOINTS = 7


class ArmModel(NamedTuple):
    """Constants of a scene's arm: where it is in MuJoCo's arrays, and its limits.

    joints, qpos, dofs, actuators: int64 (7,). torque: (2, 7), lower and upper [N m]. home_rad: (7,).
    finger_actuators: int64 (2,). finger_centre, finger_half: (2,) of their control ranges [m].
    """

    joints: np.ndarray
    qpos: np.ndarray
    dofs: np.ndarray
    actuators: np.ndarray
    torque: np.ndarray
    home_rad: np.ndarray
    grip_site: int
    finger_actuators: np.ndarray
    finger_centre: np.ndarray
    finger_half: np.ndarray
    row_start: np.ndarray
    row_size: np.ndarray
    row_column: np.ndarray


@njit(nogil=True, cache=True)
def factorise(a: np.ndarray) -> None:
    """Cholesky: leaves L with a = L L^T in the lower triangle of a (n, n)."""
    n = a.shape[0]
    for j in range(n):
        pivot = a[j, j]
        for k in range(j):
            pivot -= a[j, k] * a[j, k]
        root = np.sqrt(max(pivot, 1e-30))  # an arm stretched out straight must not become a NaN
        a[j, j] = root
        for i in range(j + 1, n):
            value = a[i, j]
            for k in range(j):
                value -= a[i, k] * a[j, k]
            a[i, j] = value / root


@njit(nogil=True, cache=True)
def solve(factor: np.ndarray, b: np.ndarray) -> None:
    """Puts the solution of L L^T x = b into b (n,)."""
    n = factor.shape[0]
    for i in range(n):
        value = b[i]
        for k in range(i):
            value -= factor[i, k] * b[k]
        b[i] = value / factor[i, i]
    for i in range(n - 1, -1, -1):
        value = b[i]
        for k in range(i + 1, n):
            value -= factor[k, i] * b[k]
        b[i] = value / factor[i, i]


@njit(nogil=True, cache=True)
def rotate(axis_angle: np.ndarray, rotation: np.ndarray, out: np.ndarray) -> None:
    """Puts the rotation by axis_angle (3,) [rad] after `rotation` (9,), row by row, into out (9,)."""
    angle = np.sqrt(axis_angle[0] ** 2 + axis_angle[1] ** 2 + axis_angle[2] ** 2)
    if angle < 1e-12:
        out[:] = rotation
        return
    x, y, z = axis_angle[0] / angle, axis_angle[1] / angle, axis_angle[2] / angle
    c, s = np.cos(angle), np.sin(angle)
    turn = (
        (c + x * x * (1 - c), x * y * (1 - c) - z * s, x * z * (1 - c) + y * s),
        (y * x * (1 - c) + z * s, c + y * y * (1 - c), y * z * (1 - c) - x * s),
        (z * x * (1 - c) - y * s, z * y * (1 - c) + x * s, c + z * z * (1 - c)),
    )
    for i in range(3):
        for j in range(3):
            out[3 * i + j] = (
                turn[i][0] * rotation[j] + turn[i][1] * rotation[3 + j] + turn[i][2] * rotation[6 + j]
            )


@njit(nogil=True, cache=True)
def set_goal(
    action: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    goal_position: np.ndarray,
    goal_rotation: np.ndarray,
) -> None:
    """Moves the goal: `action` (6,), clipped to +-1, from the present pose; no rotation command keeps the old goal."""
    turn = np.empty(3)
    for i in range(3):
        goal_position[i] = position[i] + POSITION_STEP_M * min(max(action[i], -1.0), 1.0)
        turn[i] = ROTATION_STEP_RAD * min(max(action[3 + i], -1.0), 1.0)
    if turn[0] != 0.0 or turn[1] != 0.0 or turn[2] != 0.0:
        rotate(turn, rotation, goal_rotation)


@njit(nogil=True, cache=True)
def orientation_error(goal: np.ndarray, rotation: np.ndarray, out: np.ndarray) -> None:
    """Half the sum of the cross products of the axes: goal, rotation (9,); out (3,)."""
    out[:] = 0.0
    for axis in range(3):
        cx, cy, cz = rotation[axis], rotation[3 + axis], rotation[6 + axis]
        dx, dy, dz = goal[axis], goal[3 + axis], goal[6 + axis]
        out[0] += 0.5 * (cy * dz - cz * dy)
        out[1] += 0.5 * (cz * dx - cx * dz)
        out[2] += 0.5 * (cx * dy - cy * dx)


@njit(nogil=True, cache=True)
def arm_torques(
    arm: ArmModel,
    qpos: np.ndarray,
    qvel: np.ndarray,
    mass: np.ndarray,
    bias: np.ndarray,
    axes: np.ndarray,
    anchors: np.ndarray,
    position: np.ndarray,
    rotation: np.ndarray,
    goal_position: np.ndarray,
    goal_rotation: np.ndarray,
    ctrl: np.ndarray,
) -> None:
    """Writes the arm's torques [N m], clipped to its limits, into ctrl.

    mass: the sparse inertia matrix of MuJoCo. bias: (nv,) [N m]. axes, anchors: (njnt, 3), in the world.
    """
    jacobian, inertia, speed = np.zeros((6, JOINTS)), np.zeros((JOINTS, JOINTS)), np.zeros(JOINTS)
    for j in range(JOINTS):
        speed[j] = qvel[arm.dofs[j]]
        joint = arm.joints[j]
        ax, ay, az = axes[joint, 0], axes[joint, 1], axes[joint, 2]
        rx = position[0] - anchors[joint, 0]
        ry = position[1] - anchors[joint, 1]
        rz = position[2] - anchors[joint, 2]
        jacobian[0, j], jacobian[1, j], jacobian[2, j] = (
            ay * rz - az * ry,
            az * rx - ax * rz,
            ax * ry - ay * rx,
        )
        jacobian[3, j], jacobian[4, j], jacobian[5, j] = ax, ay, az
        for k in range(arm.row_size[j]):
            column = arm.row_column[j, k]
            value = mass[arm.row_start[j] + k]
            inertia[j, column] = value
            inertia[column, j] = value
    force = np.empty(6)
    orientation_error(goal_rotation, rotation, force[3:])
    for i in range(3):
        force[i] = goal_position[i] - position[i]
    for i in range(6):
        velocity = 0.0
        for j in range(JOINTS):
            velocity += jacobian[i, j] * speed[j]
        force[i] = STIFFNESS * force[i] - _DAMPING * velocity
    posture = np.empty(JOINTS)
    for j in range(JOINTS):
        posture[j] = POSTURE_STIFFNESS * (arm.home_rad[j] - qpos[arm.qpos[j]]) - _POSTURE_DAMPING * speed[j]
    torque = _combine(jacobian, inertia, force, posture)
    for j in range(JOINTS):
        total = torque[j] + bias[arm.dofs[j]]
        ctrl[arm.actuators[j]] = min(max(total, arm.torque[0, j]), arm.torque[1, j])


@njit(nogil=True, cache=True)
def _combine(jacobian: np.ndarray, inertia: np.ndarray, force: np.ndarray, posture: np.ndarray) -> np.ndarray:
    """Returns J^T (lambda_p f_p, lambda_r f_r) + M a - J^T lambda J a (7,) for a posture acceleration a."""
    factor = inertia.copy()
    factorise(factor)
    weighted = jacobian.copy()  # row i: M^-1 J_i
    for i in range(6):
        solve(factor, weighted[i])
    task = np.zeros((6, 6))
    for i in range(6):
        for k in range(i + 1):
            value = 0.0
            for j in range(JOINTS):
                value += jacobian[i, j] * weighted[k, j]
            task[i, k] = value
            task[k, i] = value
    moving, turning = task[:3, :3].copy(), task[3:, 3:].copy()
    factorise(moving)
    factorise(turning)
    factorise(task)
    solve(moving, force[:3])
    solve(turning, force[3:])
    away = np.zeros(6)
    for i in range(6):
        for j in range(JOINTS):
            away[i] += jacobian[i, j] * posture[j]
    solve(task, away)
    torque = np.zeros(JOINTS)
    for j in range(JOINTS):
        for i in range(6):
            torque[j] += jacobian[i, j] * (force[i] - away[i])
        for k in range(JOINTS):
            torque[j] += inertia[j, k] * posture[k]
    return torque


@njit(nogil=True, cache=True)
def move_fingers(arm: ArmModel, command: float, target: np.ndarray, ctrl: np.ndarray) -> None:
    """Moves the fingers' targets (2,), in [-1, 1], towards the command's sign: above 0 closes, below 0 opens."""
    sign = np.sign(command)
    target[0] = min(max(target[0] - GRIPPER_STEP * sign, -1.0), 1.0)
    target[1] = min(max(target[1] + GRIPPER_STEP * sign, -1.0), 1.0)
    for i in range(2):
        ctrl[arm.finger_actuators[i]] = arm.finger_centre[i] + arm.finger_half[i] * target[i]
