"""Statistics that are damaged, or of something else, end in one line that says what to do."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rehearsal.errors import RehearsalError
from training.policies.inspection import statistics_of
from training.policies.openvla.statistics import STATISTICS, action_codec, read_statistics, state_bounds
from training.simulators.libero.actions import ACTION_SPEC

ONE: dict[str, Any] = {
    "action": {
        "mean": [0.0] * 7, "q01": [-0.5] * 6 + [0.0], "q99": [0.5] * 6 + [1.0], "mask": [True] * 6 + [False],
    },
    "proprio": {"mean": [0.0] * 8, "q01": [0.0] * 8, "q99": [2.0] * 8},
}  # fmt: skip


@pytest.fixture
def one() -> dict[str, Any]:
    return copy.deepcopy(ONE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no JSON"),
        ("{}", "names no dataset: copy it"),
        ("[]", "names no dataset: copy it"),
        ('{"own": 3}', "'own' is no statistics of a dataset: Expected `object`, got `int`; copy it again"),
        (
            '{"own": {"proprio": {}}}',
            "'own' is no statistics of a dataset: .*missing required field `action`",
        ),
        ('{"own": {"action": [1]}}', r"'own' is no statistics of a dataset: .* at `\$.action`"),
        ('{"own": {"action": {"q01": "a"}}}', "'own' is no statistics of a dataset: Expected `array`"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / STATISTICS).write_text(text)
    with pytest.raises(RehearsalError, match=f"{STATISTICS}:? {reason}"):
        read_statistics(tmp_path, None)


def test_inspection_names_a_damaged_file_too(tmp_path: Path) -> None:
    (tmp_path / STATISTICS).write_text('{"own": 3}')
    with pytest.raises(RehearsalError, match=f"{STATISTICS}: no statistics of datasets; copy it"):
        statistics_of(tmp_path, {})
    with pytest.raises(RehearsalError, match="norm_stats in .*config.json: no statistics of datasets"):
        statistics_of(tmp_path / "elsewhere", {"norm_stats": {"own": {"action": [1]}}})
    assert statistics_of(tmp_path / "elsewhere", {"norm_stats": {"own": ONE}}) == {
        "own": "7 actions, 8 state values"
    }


def test_bounds_that_are_not_there_are_named_with_those_that_are(one: dict[str, Any]) -> None:
    with pytest.raises(
        RehearsalError, match="no min of the action, which bounds = 'extremes' needs; they have: mean, q01"
    ):
        action_codec(one, ACTION_SPEC, 8, bounds="extremes")
    del one["proprio"]["q99"]
    with pytest.raises(
        RehearsalError, match="no q99 of the state, which bounds = 'q99' needs; they have: mean, q01"
    ):
        state_bounds(one, 8, bounds="q99")
    del one["proprio"]
    with pytest.raises(RehearsalError, match="no q01 of the state, .* they have: nothing of it"):
        state_bounds(one, 8, bounds="q99")


@pytest.mark.parametrize("part", ["q01", "q99", "mask"])
def test_a_list_of_another_length_is_refused(one: dict[str, Any], part: str) -> None:
    one["action"][part] = one["action"][part][:3]
    with pytest.raises(
        RehearsalError, match=r"action values, this robot has 7 .*inspect_checkpoint.py lists"
    ):
        action_codec(one, ACTION_SPEC, 8, bounds="q99")


@pytest.mark.parametrize("floor", [0.0, 1e-8])
def test_a_value_that_never_varied_decodes_to_itself(one: dict[str, Any], floor: float) -> None:
    """OpenVLA adds nothing to the range, and decodes all 256 tokens of such a value to it."""
    one["action"]["q01"][2] = one["action"]["q99"][2] = 0.25
    codec = action_codec(one, ACTION_SPEC, 1, bounds="q99", floor=floor)
    tokens = np.repeat(np.arange(256)[:, None, None], 7, axis=2)
    found = codec.decode(tokens, np.zeros((256, 8)))
    assert found[:, 0, 2] == pytest.approx(0.25, abs=1e-7) and np.ptp(found[:, 0, 1]) > 0.99
    assert codec.upper[1] == 0.5 + floor
