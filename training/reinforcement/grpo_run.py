"""One run of GRPO on a cell's twin, from a fine-tuned policy to a better one in the run's folder."""

import logging
import os
from pathlib import Path

import msgspec
import torch

from rehearsal.cell import read_cell
from rehearsal.errors import RehearsalError
from rehearsal.simulation import VectorSimulator, scenarios
from training.evaluation.success_rate import evaluate_greedy, pass_at_k
from training.policies.token_distribution import Decoding
from training.policies.trained_policy import TrainedPolicy, load_policy
from training.reinforcement.grpo import GRPOConfig, GRPOLearner
from training.run_folder import FREE, RunFolder
from training.simulators.factory import make_simulator
from training.training_loop import LoopOptions, train

log = logging.getLogger(__name__)


class GRPORun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/grpo.py`."""

    out: Path = Path("runs/grpo")
    """The run's folder."""
    policy: Path = Path("runs/sft")
    """The policy to begin with: a policy's folder or a run's."""
    cell: Path = Path("launch/cells/single_piper.toml")
    training: GRPOConfig = GRPOConfig()
    loop: LoopOptions = LoopOptions()
    decoding: Decoding = "argmax"
    """How greedy evaluation picks a token."""
    pass_at: int = 8
    """Samples a scenario of the check before training; 0: no check."""
    pass_at_scenarios: int = 32
    """Validation scenarios of that check."""
    max_worlds: int = 128
    """Worlds simulated at once."""
    threads: int = 0
    """Threads of the policy and of the simulator; 0: one a core."""


def run_grpo(config: GRPORun) -> None:
    """Trains, or goes on from the last checkpoint; ends with the policy in `out`/policy."""
    threads = config.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    cell, policy = read_cell(config.cell), load_policy(config.policy)
    if differences := cell.action_spec().differences(policy.record.action_spec):
        raise RehearsalError(f"{config.policy} is not for cell {cell.name}: {'; '.join(differences)}")
    transform = policy.record.transform
    simulator = make_simulator(
        cell,
        policy.record.task,
        cameras=transform.cameras,
        side_px=transform.side_px,
        max_worlds=config.max_worlds,
        threads=threads,
    )
    chosen = scenarios(policy.record.task, "validation", config.loop.evaluate_scenarios)
    try:
        # The rate is constant, so that a run may be prolonged.
        with RunFolder(config.out, config, free=(*FREE, "training.steps")) as run:
            if run.state is None and config.pass_at:
                run.log(0, check_pass_at_k(simulator, policy, config))
            best = train(
                GRPOLearner(policy, simulator, config.training),
                run,
                steps=config.training.steps,
                options=config.loop,
                evaluate=lambda: {"greedy_success": evaluate_greedy(simulator, policy, chosen, config.decoding).rate},
                score="greedy_success",
            )
    finally:
        simulator.close()
    log.info("greedy success on validation scenarios %.3f; policy in %s", best, config.out / "policy")


def check_pass_at_k(simulator: VectorSimulator, policy: TrainedPolicy, config: GRPORun) -> dict[str, float]:
    """Returns pass@k and sampled success; warns when reinforcement would have nothing to learn from."""
    found = pass_at_k(
        simulator,
        policy,
        scenarios(policy.record.task, "validation", config.pass_at_scenarios),
        k=config.pass_at,
        temperature=config.training.temperature,
        seed=config.training.seed,
    )
    log.info("pass@%d %s; sampled success %s", found.k, found.solved, found.sampled)
    if found.warning:
        log.warning(found.warning)
    return {f"pass_at_{found.k}": found.solved.rate, "sampled_success": found.sampled.rate}
