"""Simulators, experts, demonstrations, policies, supervised fine-tuning, reinforcement, evaluation, export."""

import os

# Before torch is imported, which reads it once: its idle threads sleep instead of spinning. Spinning takes the cores
# from the simulator's threads between two passes, and on a machine that does anything else beside it makes every
# parallel section wait for a thread that is not running: 1,140 ms of processor time an SFT step against 290
# (measured, two cores, load 4); on an idle machine the two are alike.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
