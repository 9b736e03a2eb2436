"""The twin: a MuJoCo model of the cell."""
