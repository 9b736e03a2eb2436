"""Forward kinematics against the vendor's own, at many poses, in both firmware versions."""

import numpy as np
import pytest
from piper_sdk import C_PiperForwardKinematics
from scipy.spatial.transform import Rotation

from robot_drivers.piper_kinematics import DOF, KinematicsVersion, link_frames

VERSIONS: dict[KinematicsVersion, int] = {"s_v1_6_3_and_earlier": 0, "after_s_v1_6_3": 1}
LOWER = np.array([-2.618, 0.0, -2.967, -1.745, -1.22, -2.094])
UPPER = np.array([2.618, 3.14, 0.0, 1.745, 1.22, 2.094])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_link_is_where_the_vendor_has_it(version: KinematicsVersion) -> None:
    vendor = C_PiperForwardKinematics(VERSIONS[version])
    poses = np.random.default_rng(0).uniform(LOWER, UPPER, (200, DOF))
    for joint_rad in poses:
        frames = link_frames(joint_rad, version)
        theirs = np.array(vendor.CalFK(joint_rad.tolist()))  # per link: x, y, z [mm], roll, pitch, yaw [degrees]
        np.testing.assert_allclose(1000 * frames[:, :3, 3], theirs[:, :3], atol=0.1)
        regular = np.abs(theirs[:, 4]) < 89  # the vendor rounds a pitch near 90 degrees to 90
        vendors = Rotation.from_euler("xyz", theirs[regular, 3:], degrees=True)
        assert (vendors.inv() * Rotation.from_matrix(frames[regular, :3, :3])).magnitude().max() < 1e-6


def test_the_two_firmware_versions_have_their_zero_pose_a_centimetre_apart() -> None:
    after = link_frames(np.zeros(DOF), "after_s_v1_6_3")[-1, :3, 3]
    before = link_frames(np.zeros(DOF), "s_v1_6_3_and_earlier")[-1, :3, 3]
    np.testing.assert_allclose(1000 * after, (56.13, 0, 213.27), atol=0.01)
    np.testing.assert_allclose(1000 * before, (54.95, 0, 203.39), atol=0.01)


def test_frames_are_rigid() -> None:
    for joint_rad in np.random.default_rng(1).uniform(LOWER, UPPER, (20, DOF)):
        rotation = link_frames(joint_rad, "after_s_v1_6_3")[:, :3, :3]
        np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (DOF, 1, 1)), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(rotation), 1)
