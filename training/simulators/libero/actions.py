"""What an action and a state mean in LIBERO: robosuite's OSC_POSE command for a Franka Panda at 20 Hz."""

from rehearsal.spec import ActionSpec

CONTROL_RATE_HZ = 20.0

# Metres and radians that a command of 1 asks for.
POSITION_STEP_M = 0.05
ROTATION_STEP_RAD = 0.5

ACTION_SPEC = ActionSpec(
    names=("x", "y", "z", "rotation_x", "rotation_y", "rotation_z", "gripper"),
    units=("0.05 m", "0.05 m", "0.05 m", "0.5 rad", "0.5 rad", "0.5 rad", "sign"),
    frame="robot base",
    mode="delta",
    gripper_sign=-1,
    lower=(-1.0,) * 7,
    upper=(1.0,) * 7,
    rate_hz=CONTROL_RATE_HZ,
)

STATE_NAMES = (
    "eef_x_m",
    "eef_y_m",
    "eef_z_m",
    "eef_rotation_x_rad",
    "eef_rotation_y_rad",
    "eef_rotation_z_rad",
    "finger_1_m",
    "finger_2_m",
)
"""The end effector's position and axis-angle in the world, and the two fingers' positions."""
