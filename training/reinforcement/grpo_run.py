"""One run of GRPO on a cell's twin or a LIBERO suite, from a fine-tuned policy to a better one in the run's folder."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from rehearsal.simulation import Scenario, VectorSimulator
from training.evaluation.success_rate import evaluate_greedy, pass_at_k
from training.policies.policy import Decoding
from training.policies.trained_policy import TrainedPolicy, load_token_policy
from training.reinforcement.grpo import GRPOConfig, GRPOLearner
from training.run_folder import FREE, RunFolder
from training.simulators.workplace import Physics, check_fits, read_workplace
from training.training_loop import LoopOptions, train

log = logging.getLogger(__name__)


class GRPORun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/grpo.py`."""

    out: Path = Path("runs/grpo")
    """The run's folder."""
    policy: Path = Path("runs/sft")
    """The policy to begin with: a policy's folder or a run's."""
    cell: Path = Path("launch/cells/single_piper.toml")
    suite: str | None = None
    """LIBERO suite in place of the cell, for example libero_spatial."""
    task: str | None = None
    """The task to train on, as for SFT; that of the policy by default."""
    training: GRPOConfig = GRPOConfig()
    loop: LoopOptions = LoopOptions()
    decoding: Decoding = "argmax"
    """How greedy evaluation picks a token."""
    pass_at: int = 8
    """Samples a scenario of the check before training; 0: no check."""
    pass_at_scenarios: int = 32
    """Validation scenarios of that check."""
    physics: Physics = "fast"
    """Of a suite. fast: islands sleep, coarser meshes, no reflections; exact: the benchmark's own model."""
    horizon_steps: int | None = None
    """Control steps of a suite's episode; 512 by default. A twin's tasks have their own."""
    max_worlds: int = 128
    """Worlds simulated at once."""
    threads: int = 0
    """Threads of the policy and of the simulator; 0: one a core."""


def run_grpo(config: GRPORun) -> None:
    """Trains, or goes on from the last checkpoint; ends with the policy in `out`/policy."""
    threads = config.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    workplace = read_workplace(
        config.cell, config.suite, physics=config.physics, horizon_steps=config.horizon_steps
    )
    policy = load_token_policy(config.policy)
    check_fits(policy.record.action_spec, workplace, config.policy)
    task = workplace.check_task(config.task or policy.record.task)
    policy.record = msgspec.structs.replace(policy.record, cell=workplace.name, task=task)
    sampling = config.training.sampling
    count = min(sampling.scenarios, workplace.split_size(task, sampling.split))
    training = workplace.scenarios(task, sampling.split, count)
    checking = workplace.scenarios(task, "validation", config.pass_at_scenarios)
    chosen = workplace.scenarios(task, "validation", config.loop.evaluate_scenarios)
    simulator = workplace.simulator(
        task,
        cameras=policy.cameras,
        side_px=policy.side_px,
        max_worlds=config.max_worlds,
        threads=threads,
    )
    try:
        # The rate is constant, so that a run may be prolonged.
        with RunFolder(config.out, config, free=(*FREE, "training.steps")) as run:
            if run.state is None and config.pass_at:
                run.log(0, check_pass_at_k(simulator, policy, checking, config))
            best = train(
                GRPOLearner(policy, simulator, config.training, training),
                run,
                steps=config.training.steps,
                options=config.loop,
                evaluate=lambda: {"greedy_success": evaluate_greedy(simulator, policy, chosen, config.decoding).rate},
                score="greedy_success",
            )
    finally:
        simulator.close()
    log.info("greedy success on validation scenarios %.3f; policy in %s", best, config.out / "policy")


def check_pass_at_k(
    simulator: VectorSimulator, policy: TrainedPolicy, chosen: Sequence[Scenario], config: GRPORun
) -> dict[str, float]:
    """Returns pass@k and sampled success; warns when reinforcement would have nothing to learn from."""
    found = pass_at_k(
        simulator,
        policy,
        chosen,
        k=config.pass_at,
        temperature=config.training.temperature,
        seed=config.training.seed,
    )
    log.info("pass@%d %s; sampled success %s", found.k, found.solved, found.sampled)
    if found.warning:
        log.warning(found.warning)
    return {f"pass_at_{found.k}": found.solved.rate, "sampled_success": found.sampled.rate}
