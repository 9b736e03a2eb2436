"""One run of GRPO, from a fine-tuned policy to a better one in the run's folder."""

from pathlib import Path

from training.reinforcement.grpo import GRPOConfig, GRPOLearner
from training.reinforcement.reinforcement_run import Batches, ReinforcementRun, reinforce


class GRPORun(ReinforcementRun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/grpo.py`."""

    out: Path = Path("runs/grpo")
    """The run's folder."""
    training: GRPOConfig = GRPOConfig()


def run_grpo(config: GRPORun) -> None:
    """Trains, or goes on from the last checkpoint; ends with the policy in `out`/policy."""
    training = config.training
    batches = Batches(
        groups=training.groups,
        group_size=training.group_size,
        sampling=training.sampling,
        asynchronous=training.asynchronous,
    )
    reinforce(
        config,
        config.out,
        training,
        batches,
        lambda policy, collector, engine: GRPOLearner(policy, collector, training, engine),
    )
