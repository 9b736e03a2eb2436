"""One run of PPO, from a fine-tuned policy to a better one in the run's folder."""

from pathlib import Path

from training.reinforcement.ppo import PPOConfig, PPOLearner
from training.reinforcement.reinforcement_run import Batches, ReinforcementRun, reinforce


class PPORun(ReinforcementRun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/ppo.py`."""

    out: Path = Path("runs/ppo")
    """The run's folder."""
    training: PPOConfig = PPOConfig()


def run_ppo(config: PPORun) -> None:
    """Trains, or goes on from the last checkpoint; ends with the policy in `out`/policy."""
    training = config.training
    batches = Batches(groups=training.trajectories, group_size=1, sampling=training.sampling, critic=True)
    reinforce(
        config,
        config.out,
        training,
        batches,
        lambda policy, collector, engine: PPOLearner(policy, collector, training, engine),
    )
