"""Scenarios: what is trained on is never what claims are made on."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from rehearsal.errors import RehearsalError
from rehearsal.simulation import SPLIT_SIZE, SPLIT_START, Scenario, scenarios

SPLITS = tuple(SPLIT_START)


@given(st.sampled_from(SPLITS), st.integers(0, SPLIT_SIZE - 50), st.integers(0, 50))
def test_a_split_holds_only_its_own_seeds(split: str, first: int, count: int) -> None:
    drawn = scenarios("click_bell", split, count, first)
    assert [s.split for s in drawn] == [split] * count
    assert len({s.seed for s in drawn}) == count


def test_splits_are_disjoint_to_their_last_seed() -> None:
    edges = {split: {scenarios("t", split, 1, first)[0].seed for first in (0, SPLIT_SIZE - 1)} for split in SPLITS}
    ranges = sorted((min(seeds), max(seeds)) for seeds in edges.values())
    assert len(ranges) == 4
    assert all(before[1] < after[0] for before, after in pairwise(ranges))


def test_a_stored_scenario_names_its_state() -> None:
    stored = scenarios("libero_spatial.0", "stored", 2, first=7)
    assert [s.seed for s in stored] == [3_000_007, 3_000_008]
    assert [s.stored_state for s in stored] == [7, 8]
    assert scenarios("libero_spatial.0", "held_out", 1)[0].stored_state is None


def test_scenarios_go_on_where_the_last_ones_ended() -> None:
    assert scenarios("t", "train", 5) == scenarios("t", "train", 2) + scenarios("t", "train", 3, first=2)


@pytest.mark.parametrize(("count", "first"), [(1, SPLIT_SIZE), (SPLIT_SIZE + 1, 0), (1, -1)])
def test_a_split_does_not_run_into_the_next(count: int, first: int) -> None:
    with pytest.raises(RehearsalError, match=f"a split holds {SPLIT_SIZE}"):
        scenarios("t", "train", count, first)


@pytest.mark.parametrize("seed", [-1, 4 * SPLIT_SIZE])
def test_a_seed_outside_every_split_is_refused(seed: int) -> None:
    with pytest.raises(RehearsalError, match=f"seed {seed} is in no split"):
        _ = Scenario(task="t", seed=seed).split
