"""The study of recipes: each variant changes one thing, runs are kept, figures and curves are what the runs say."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rehearsal.config import read_toml
from rehearsal.errors import RehearsalError
from rehearsal.results import read_result
from training.experts.collection import CollectConfig, collect
from training.imitation.sft import SFTConfig
from training.imitation.sft_run import CompactOptions, SFTRun, run_sft
from training.reinforcement.grpo_run import GRPORun
from training.run_folder import read_curve
from training.studies.readme_tables import recipes
from training.studies.recipes import GRPO_VARIANTS, RecipesStudy, run_study
from training.studies.recipes_plot import mean_curve, recipe_curves, write_recipes_plot
from training.training_loop import LoopOptions

ROOT = Path(__file__).parents[2]
CELL = ROOT / "launch/cells/single_piper.toml"
TINY_GRPO = """
policy = "{runs}/click_bell/sft"
cell = "{cell}"
max_worlds = 4
threads = 1
pass_at = 0
[training]
control_steps = 300
groups = 2
group_size = 2
minibatches = 2
[training.sampling]
enabled = false
[loop]
evaluate_every = 1
evaluate_scenarios = 2
"""
TINY_PPO = TINY_GRPO.replace("groups = 2\ngroup_size = 2", "trajectories = 4")


def test_every_variant_changes_what_its_name_says_and_nothing_else() -> None:
    base = read_toml(ROOT / "launch/training/recipes/pick_bottle_grpo.toml", GRPORun).training
    before = msgspec.to_builtins(base)
    changed = {}
    for name, change in GRPO_VARIANTS.items():
        after = msgspec.to_builtins(change(base))
        sampling = {k for k in before["sampling"] if before["sampling"][k] != after["sampling"][k]}
        changed[name] = {k for k in before if k != "sampling" and before[k] != after[k]} | sampling
    assert changed == {
        "grpo": set(),
        "grpo_no_dynamic_sampling": {"enabled"},
        "grpo_symmetric_clip": {"clip_high"},
        "grpo_temperature_1": {"temperature"},
        "grpo_kl": {"kl_coefficient"},
        "grpo_progress_reward": {"progress_weight", "success_low"},
        "grpo_dr": {"advantage_scale", "aggregation"},
        "grpo_gspo": {"ratio_of", "clip_low", "clip_high"},
        "grpo_curriculum": {"curriculum"},
        "grpo_asynchronous": {"asynchronous"},
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> RecipesStudy:
    """One seed of two recipes on the twin, tiny."""
    root = tmp_path_factory.mktemp("recipes")
    runs = root / "runs"
    collect(CollectConfig(cell=CELL, episodes=2, out=root / "data", side_px=32, cameras=("wrist",), max_worlds=2))
    run_sft(
        SFTRun(
            out=runs / "click_bell/sft", demonstrations=root / "data", cell=CELL, max_worlds=2, threads=1,
            policy=CompactOptions(cameras=("wrist",), side_px=32, width=32, layers=1, heads=2, keypoints=8),
            training=SFTConfig(steps=2, batch_frames=8, validation_fraction=0.0),
            loop=LoopOptions(evaluate_every=0, evaluate_scenarios=2),
        )
    )  # fmt: skip
    (root / "click_bell_grpo.toml").write_text(TINY_GRPO.format(runs=runs, cell=CELL))
    (root / "click_bell_ppo.toml").write_text(TINY_PPO.format(runs=runs, cell=CELL))
    config = RecipesStudy(
        tasks=("click_bell",), variants=("ppo", "grpo_asynchronous"), seeds=(3,), configs=root, runs=runs, n=2,
        results=root / "results",
    )  # fmt: skip
    run_study(config)
    return config


def test_runs_have_one_budget_and_are_judged_on_held_out_scenarios(study: RecipesStudy) -> None:
    figures = read_result(study.results / "recipes.json").figures
    for variant in ("sft", "ppo", "grpo_asynchronous"):
        assert figures[f"click_bell.{variant}.success.n"] == 2
        folder = study.runs / "click_bell" / (variant if variant == "sft" else f"{variant}_3")
        held_out = json.loads((folder / "held_out.json").read_text())
        assert figures[f"click_bell.{variant}.success"] == held_out["successes"] / 2
    for variant in ("ppo", "grpo_asynchronous"):
        last = read_curve(study.runs / f"click_bell/{variant}_3")[-1]["control_steps"]
        assert 300 <= last <= 300 + 4 * 80
    assert read_result(study.results / "recipes.json").seeds["scenarios"] == [2_000_000, 2_000_001]


def test_a_finished_run_is_not_run_again(study: RecipesStudy) -> None:
    path = study.runs / "click_bell/ppo_3/held_out.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"successes": 1}))
    run_study(study)
    assert read_result(study.results / "recipes.json").figures["click_bell.ppo.seed_3"] == 0.5


def test_curves_are_averaged_over_seeds_up_to_where_all_have_been(study: RecipesStudy, tmp_path: Path) -> None:
    grid, mean = mean_curve({0: [(0, 0.2), (100, 0.4)], 1: [(0, 0.4), (50, 0.6), (200, 0.8)]})
    assert grid[-1] == 100
    assert mean[[0, -1]] == pytest.approx([0.3, (0.4 + 0.6 + 0.2 / 3) / 2])
    assert np.interp(50, grid, mean) == pytest.approx(0.45, abs=0.01)
    result = read_result(study.results / "recipes_curves.json")
    assert set(recipe_curves(result)["click_bell"]) == {"ppo", "grpo_asynchronous"}
    write_recipes_plot(tmp_path / "curves.svg", result)
    assert "asynchronous" in (tmp_path / "curves.svg").read_text()


def test_the_table_says_success_and_how_seeds_differ(study: RecipesStudy) -> None:
    result = msgspec.structs.replace(
        read_result(study.results / "recipes.json"),
        figures={
            "click_bell.sft.success": 0.5, "click_bell.grpo.success": 0.75, "click_bell.grpo.success.low": 0.7,
            "click_bell.grpo.success.high": 0.8, "click_bell.grpo.seed_0": 0.7, "click_bell.grpo.seed_1": 0.8,
        },
    )  # fmt: skip
    table = recipes(result)
    assert "| SFT, where all begin | 50.0 | – |" in table
    assert "| GRPO | 75.0 [70.0, 80.0] | 70 to 80 |" in table


def test_an_unknown_variant_is_one_clear_line(study: RecipesStudy) -> None:
    with pytest.raises(RehearsalError, match="unknown variant 'dpo'; valid: ppo, grpo"):
        run_study(msgspec.structs.replace(study, variants=("dpo",)))
