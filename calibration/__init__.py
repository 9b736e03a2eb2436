"""Calibration of cells: intrinsics, hand-eye, latency, actuators."""
