"""Simulators behind the VectorSimulator interface."""
