"""Reinforcement from success alone: rollouts, groups, advantages, losses, GRPO."""
