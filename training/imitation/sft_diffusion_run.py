"""One run of the diffusion baseline, from a dataset on disk to a small RDT policy in the run's folder."""

import logging
import os
from pathlib import Path

import msgspec
import torch

from training.evaluation.success_rate import evaluate_greedy
from training.imitation.demonstration_set import DemonstrationSet, fit_transform
from training.imitation.load_demonstrations import load_demonstrations
from training.imitation.sft_diffusion import DiffusionConfig, DiffusionLearner
from training.policies.rdt.config import ModelConfig, NoiseConfig, RDTConfig, TransformerConfig
from training.policies.rdt.learned_conditions import LearnedConditions, LearnedOptions
from training.policies.rdt.model import RDT
from training.policies.rdt.policy import RDTPolicy, RDTRecord
from training.policies.rdt.unified_action import fitted_layout
from training.run_folder import RunFolder
from training.simulators.workplace import Workplace, read_workplace
from training.training_loop import LoopOptions, train

log = logging.getLogger(__name__)


class DiffusionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size and inputs of the small RDT."""

    cameras: tuple[str, ...] = ("head",)
    """Cameras of the cell that it looks through."""
    side_px: int = 96
    """Side of its square pictures, a multiple of 16."""
    chunk_steps: int = 10
    """Control steps a decision; all that a sample holds are played."""
    width: int = 128
    """Of every token, those of the conditions too."""
    depth: int = 4
    """Blocks: even ones attend to the instruction, odd ones to the pictures."""
    heads: int = 4
    sampling_steps: int = 5
    """Steps of the solver that draws a chunk."""
    camera_tokens: int = 8
    keypoints: int = 32
    text_buckets: int = 512
    text_length: int = 16


class DiffusionRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of `python training/sft_diffusion.py`."""

    out: Path = Path("runs/diffusion")
    """The run's folder."""
    demonstrations: Path = Path("runs/demonstrations")
    """Folder of the LeRobot dataset."""
    episodes: int | None = None
    """Use the first so many demonstrations; all of them by default."""
    stride_steps: int = 1
    """Control steps between the decision points taken from a demonstration."""
    cell: Path = Path("launch/cells/single_piper.toml")
    task: str = "click_bell"
    """A task that the cell lists."""
    policy: DiffusionOptions = DiffusionOptions()
    training: DiffusionConfig = DiffusionConfig()
    loop: LoopOptions = LoopOptions(evaluate_every=0, checkpoint_every=200, keep_best=False)
    max_worlds: int = 64
    """Worlds that the evaluation simulates at once."""
    threads: int = 0
    """Threads of the policy and of the simulator; 0: one a core."""


def run_sft_diffusion(config: DiffusionRun) -> None:
    """Trains, or goes on from the last checkpoint; ends with the policy in `out`/policy."""
    threads = config.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    options = config.policy
    workplace = read_workplace(config.cell)
    task = workplace.check_task(config.task)
    demonstrations = load_demonstrations(
        config.demonstrations,
        cameras=options.cameras,
        side_px=options.side_px,
        chunk_steps=options.chunk_steps,
        stride_steps=config.stride_steps,
        episodes=config.episodes,
        spec=workplace.action_spec,
    )
    log.info("%d decision points of %d demonstrations", len(demonstrations), demonstrations.episode[-1] + 1)
    policy = new_rdt_policy(demonstrations, workplace, task, options, config.training.seed)
    learner = DiffusionLearner(policy, demonstrations, config.training)
    chosen = workplace.scenarios(task, "validation", config.loop.evaluate_scenarios)
    simulator = workplace.simulator(
        task, cameras=options.cameras, side_px=options.side_px, max_worlds=config.max_worlds, threads=threads
    )
    try:
        with RunFolder(config.out, config) as run:
            best = train(
                learner,
                run,
                steps=config.training.steps,
                options=config.loop,
                evaluate=lambda: (
                    learner.validate() | {"success": evaluate_greedy(simulator, learner.policy, chosen).rate}
                ),
                score="success",
            )
    finally:
        simulator.close()
    log.info("success on validation scenarios %.3f; policy in %s", best, config.out / "policy")


def new_rdt_policy(
    demonstrations: DemonstrationSet, workplace: Workplace, task: str, options: DiffusionOptions, seed: int
) -> RDTPolicy:
    """Returns an untrained small RDT whose action space and transform are fitted to the demonstrations."""
    spec = workplace.action_spec
    layout = fitted_layout(spec, demonstrations.state, demonstrations.actions)
    conditions = LearnedOptions(
        transform=fit_transform(
            demonstrations,
            options.cameras,
            options.side_px,
            text_buckets=options.text_buckets,
            text_length=options.text_length,
        ),
        width=options.width,
        camera_tokens=options.camera_tokens,
        keypoints=options.keypoints,
    )
    model = RDTConfig(
        action_dim=layout.size,
        state_token_dim=layout.size,
        pred_horizon=options.chunk_steps,
        lang_token_dim=options.width,
        img_token_dim=options.width,
        max_lang_cond_len=options.text_length,
        img_cond_len=conditions.image_tokens,
        config=ModelConfig(
            rdt=TransformerConfig(hidden_size=options.width, depth=options.depth, num_heads=options.heads),
            noise_scheduler=NoiseConfig(num_inference_timesteps=options.sampling_steps),
        ),
    )
    record = RDTRecord(
        cell=workplace.name,
        task=task,
        action_spec=spec,
        layout=layout,
        conditions=conditions,
        chunk_steps=options.chunk_steps,
        seed=seed,
    )
    return RDTPolicy(RDT.new(model, seed), LearnedConditions.new(conditions, seed), record)
