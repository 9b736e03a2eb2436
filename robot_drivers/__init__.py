"""Arms: kinematics, limits, the Piper's model, drivers. Knows no task."""
