"""Simulators, experts, demonstrations, policies, supervised fine-tuning, reinforcement, evaluation, export."""
