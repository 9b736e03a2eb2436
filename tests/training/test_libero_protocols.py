"""LIBERO's evaluations by name: what each one tries, and the table and figures of outcomes made by hand."""

import numpy as np
import pytest

from rehearsal.errors import RehearsalError
from training.evaluation.evaluate_run import EvaluateRun, run_evaluation
from training.evaluation.libero_protocols import (
    Part,
    PartResult,
    TaskResult,
    missing,
    protocol_parts,
    table,
    task_count,
)
from training.reinforcement.rollout import Success


def test_the_stored_states_are_tried_by_the_papers_horizons() -> None:
    assert [(p.suite, p.split, p.horizon_steps) for p in protocol_parts("paper", "libero_10")] == [
        ("libero_10", "stored", 512)
    ]
    found = {
        suite: protocol_parts("oft", f"libero_{suite}")[0] for suite in ("spatial", "object", "goal", "10")
    }
    assert {suite: part.horizon_steps for suite, part in found.items()} == {
        "spatial": 220, "object": 280, "goal": 300, "10": 520,
    }  # fmt: skip
    assert {part.split for part in found.values()} == {"stored"}
    assert protocol_parts("held_out", "libero_90")[0].split == "held_out"


def test_perturbed_suites_have_their_own_stored_states() -> None:
    parts = protocol_parts("pro", "libero_goal")
    assert [p.suite for p in parts] == [
        "libero_goal_lan",
        "libero_goal_object",
        "libero_goal_swap",
        "libero_goal_task",
    ]
    assert {(p.split, p.horizon_steps) for p in parts} == {("stored", 512)}
    assert (task_count("pro", "libero_goal", "3"), task_count("paper", "libero_goal", "all")) == (4, 10)


@pytest.mark.parametrize("protocol", ["pro", "oft"])
def test_a_protocol_is_not_stretched_to_other_suites(protocol: str) -> None:
    with pytest.raises(
        RehearsalError, match=f"unknown suite for protocol {protocol}: 'libero_10_env'; valid: libero_"
    ):
        protocol_parts(protocol, "libero_10_env")


def success(successes: int, n: int) -> Success:
    return Success(success=np.arange(n) < successes, steps=np.full(n, 100))


def results() -> list[PartResult]:
    lan, swap = (Part(suite=f"s_{e}", changed=e, split="stored", horizon_steps=512) for e in ("lan", "swap"))
    return [
        PartResult(
            part=lan,
            tasks=[
                TaskResult(number=0, name="lift", found=success(40, 50)),
                TaskResult(number=1, name="push", found=success(10, 50)),
                TaskResult(number=2, name="open", found=None, missing="no states"),
            ],
        ),
        PartResult(part=swap, tasks=[TaskResult(number=-1, name="lift", found=None, missing="no such task")]),
    ]


def test_figures_have_an_interval_and_leave_out_what_is_missing() -> None:
    """Wilson's interval of 40 of 50 is [67.0, 88.8] %, of 50 of 100 [40.4, 59.6] %."""
    figures = {name: value for result in results() for name, value in result.figures().items()}
    rates = {name for name in figures if not name.endswith((".n", ".low", ".high"))}
    assert rates == {"s_lan.0", "s_lan.1", "s_lan.mean"}
    assert (figures["s_lan.0"], figures["s_lan.0.n"]) == (0.8, 50)
    assert [figures["s_lan.0.low"], figures["s_lan.0.high"]] == pytest.approx([0.670, 0.888], abs=1e-3)
    assert (figures["s_lan.mean"], figures["s_lan.mean.n"]) == (0.5, 100)
    assert figures["s_lan.mean.low"] == pytest.approx(0.404, abs=1e-3)
    assert (
        missing(results())
        == "not available, and in no mean: s_lan open (no states); s_swap lift (no such task)"
    )
    assert missing([]) == ""


def test_the_table_says_what_is_missing_and_never_zero() -> None:
    lines = table(results()).splitlines()
    assert lines[0].split() == [
        "suite",
        "changed",
        "states",
        "horizon",
        "tasks",
        "success",
        "95",
        "%",
        "interval",
    ]
    assert lines[1] == "s_lan   lan      stored  512      2 of 3  50/100 = 50.0 %  [40.4, 59.6]"
    assert "0 of 1  not available" in lines[2] and " 0.0 %" not in lines[2]
    assert lines[5].endswith("40/50 = 80.0 %  [67.0, 88.8]   lift")
    assert "not available   no states" in lines[7] and lines[7].endswith("  open") and len(lines) == 9


def test_a_protocol_wants_a_suite_and_its_own_horizon() -> None:
    with pytest.raises(RehearsalError, match="protocol paper is one of LIBERO's: give --suite"):
        run_evaluation(EvaluateRun(protocol="paper"))
    with pytest.raises(RehearsalError, match="leave out pass_at, horizon_steps"):
        run_evaluation(EvaluateRun(protocol="paper", suite="libero_goal", horizon_steps=300))
