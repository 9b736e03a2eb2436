"""Scripted experts: inverse kinematics on privileged state, for demonstrations that a policy then learns from."""
