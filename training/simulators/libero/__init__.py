"""LIBERO's tasks (Liu et al. 2023) on an engine of our own: the same scenes, states and goals, many worlds at once."""
