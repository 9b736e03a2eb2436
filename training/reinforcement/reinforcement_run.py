"""One run of reinforcement on a cell's twin or a LIBERO suite, whichever the recipe.

GRPO and PPO are comparable by construction: rollouts, evaluation, budget and folder are these.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import torch

from rehearsal.simulation import Scenario, VectorSimulator
from training.evaluation.success_rate import evaluate_greedy, pass_at_k
from training.policies.model_training import ModelTraining
from training.policies.policy import Decoding, choose_device
from training.policies.trained_policy import TrainedPolicy, load_token_policy
from training.reinforcement.collector import AsynchronousCollector, Collector, LocalRollouts
from training.reinforcement.dynamic_sampling import DynamicSampling, GroupSampler
from training.reinforcement.policy_update import SurrogateConfig
from training.run_folder import FREE, RunFolder
from training.simulators.workplace import Physics, Workplace, check_fits, read_workplace
from training.training_loop import Learner, LoopOptions, train

log = logging.getLogger(__name__)

# The rate is constant, so that a run may be prolonged.
PROLONGED = ("training.steps", "training.control_steps")


class ReinforcementRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options that the commands of all recipes share."""

    policy: Path = Path("runs/sft")
    """The policy to begin with: a policy's folder or a run's."""
    cell: Path = Path("launch/cells/single_piper.toml")
    suite: str | None = None
    """LIBERO suite in place of the cell, for example libero_spatial."""
    task: str | None = None
    """The task to train on, as for SFT; that of the policy by default."""
    model: ModelTraining = ModelTraining()
    """How a large pretrained model is trained."""
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
    device: str = "auto"
    """Where the policy is: cpu, cuda or cuda:N; auto: a GPU where torch finds one."""


class ReinforcementLearner(Learner, Protocol):
    def close(self) -> None:
        """Ends what still runs beside it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How a recipe wants its batches: `groups` scenarios of `group_size` trajectories each."""

    groups: int
    group_size: int
    sampling: DynamicSampling
    asynchronous: bool = False


MakeLearner = Callable[[TrainedPolicy, Collector], ReinforcementLearner]


def reinforce(
    config: ReinforcementRun, out: Path, training: SurrogateConfig, batches: Batches, make_learner: MakeLearner
) -> None:
    """Trains, or goes on from the last checkpoint; ends with the policy in `out`/policy."""
    threads = config.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    workplace = read_workplace(
        config.cell, config.suite, physics=config.physics, horizon_steps=config.horizon_steps
    )
    policy = load_token_policy(config.policy)
    policy.check_reinforceable(config.policy)
    policy.begin_training(config.model)
    policy.to(choose_device(config.device))
    check_fits(policy.record.action_spec, workplace, config.policy)
    task = workplace.check_task(config.task or policy.record.task)
    policy.record = msgspec.structs.replace(policy.record, cell=workplace.name, task=task)
    checking = workplace.scenarios(task, "validation", config.pass_at_scenarios)
    chosen = workplace.scenarios(task, "validation", config.loop.evaluate_scenarios)
    scenarios = training_scenarios(workplace, task, batches.sampling)
    # Two when batches are drawn beside the update: the second one's worlds are busy while the first is evaluated.
    simulators = [
        workplace.simulator(
            task,
            cameras=policy.cameras,
            side_px=policy.side_px,
            max_worlds=config.max_worlds,
            threads=threads,
        )
        for _ in range(1 + batches.asynchronous)
    ]
    collector = make_collector(policy, simulators[-1], scenarios, training, batches)
    learner = make_learner(policy, collector)
    try:
        with RunFolder(out, config, free=(*FREE, *PROLONGED)) as run:
            if run.state is None and config.pass_at:
                run.log(0, check_pass_at_k(simulators[0], policy, checking, config, training))
            best = train(
                learner,
                run,
                steps=training.steps,
                options=config.loop,
                evaluate=lambda: {
                    "greedy_success": evaluate_greedy(simulators[0], policy, chosen, config.decoding).rate
                },
                score="greedy_success",
            )
    finally:
        learner.close()
        for simulator in simulators:
            simulator.close()
    log.info("greedy success on validation scenarios %.3f; policy in %s", best, out / "policy")


def training_scenarios(workplace: Workplace, task: str, sampling: DynamicSampling) -> list[Scenario]:
    """Returns what the recipe draws from, no more than the split holds."""
    count = min(sampling.scenarios, workplace.split_size(task, sampling.split))
    return workplace.scenarios(task, sampling.split, count)


def make_collector(
    policy: TrainedPolicy,
    simulator: VectorSimulator,
    scenarios: Sequence[Scenario],
    training: SurrogateConfig,
    batches: Batches,
) -> Collector:
    """Returns what fills the batches of one run in this process."""
    sampler = GroupSampler(
        batches.sampling,
        scenarios,
        groups=batches.groups,
        group_size=batches.group_size,
        max_worlds=simulator.max_worlds,
        seed=training.seed,
    )
    kind = AsynchronousCollector if batches.asynchronous else Collector
    return kind(
        policy, LocalRollouts(simulator), sampler, temperature=training.temperature, seed=training.seed
    )


def check_pass_at_k(
    simulator: VectorSimulator,
    policy: TrainedPolicy,
    chosen: Sequence[Scenario],
    config: ReinforcementRun,
    training: SurrogateConfig,
) -> dict[str, float]:
    """Returns pass@k and sampled success; warns when reinforcement would have nothing to learn from."""
    found = pass_at_k(
        simulator, policy, chosen, k=config.pass_at, temperature=training.temperature, seed=training.seed
    )
    log.info("pass@%d %s; sampled success %s", found.k, found.solved, found.sampled)
    if found.warning:
        log.warning(found.warning)
    return {f"pass_at_{found.k}": found.solved.rate, "sampled_success": found.sampled.rate}
