"""The comparison of the two policies on tiny runs."""

from pathlib import Path

import msgspec
import pytest

from rehearsal.errors import RehearsalError
from rehearsal.results import read_result
from training.experts.collection import CollectConfig, collect
from training.imitation.sft import SFTConfig
from training.imitation.sft_diffusion import DiffusionConfig
from training.imitation.sft_diffusion_run import DiffusionOptions, DiffusionRun, run_sft_diffusion
from training.imitation.sft_run import CompactOptions, SFTRun, run_sft
from training.studies.diffusion_baseline import DiffusionBaselineStudy, run_study
from training.studies.readme_tables import SECTIONS
from training.training_loop import LoopOptions

CELL = Path(__file__).parents[3] / "launch/cells/single_piper.toml"
LOOK = LoopOptions(evaluate_every=0, evaluate_scenarios=1)


def test_two_runs_on_the_same_demonstrations_are_compared(tmp_path: Path) -> None:
    collect(CollectConfig(cell=CELL, episodes=3, out=tmp_path / "data", side_px=32, max_worlds=3))
    common = {"demonstrations": tmp_path / "data", "cell": CELL, "loop": LOOK, "max_worlds": 1, "threads": 1}
    run_sft_diffusion(
        DiffusionRun(
            out=tmp_path / "diffusion", policy=DiffusionOptions(side_px=32, width=32, depth=2, heads=2),
            training=DiffusionConfig(steps=2, batch_frames=8), **common,
        )
    )  # fmt: skip
    compact = SFTRun(
        out=tmp_path / "compact", policy=CompactOptions(side_px=32, width=32, layers=1, heads=2),
        training=SFTConfig(steps=1, batch_frames=8), **common,
    )  # fmt: skip
    run_sft(compact)
    study = DiffusionBaselineStudy(
        cell=CELL, diffusion=tmp_path / "diffusion", compact=compact.out, n=3, max_worlds=2,
        result=tmp_path / "result.json",
    )  # fmt: skip
    assert [line.partition(":")[0] for line in run_study(study)] == ["click_bell.diffusion", "click_bell.compact"]
    result = read_result(study.result)
    assert result.figures["demonstrations"] == 3 and result.figures["click_bell.compact.n"] == 3
    assert (result.figures["training_steps.diffusion"], result.figures["training_steps.compact"]) == (2, 1)
    assert result.figures["decision_ms.diffusion"] > 0
    assert "| diffusion (small RDT) |" in SECTIONS["diffusion_baseline"](result)
    run_sft(msgspec.structs.replace(compact, out=tmp_path / "fewer", episodes=2))
    with pytest.raises(RehearsalError, match="cannot be compared: their episodes differ"):
        run_study(msgspec.structs.replace(study, compact=tmp_path / "fewer"))
