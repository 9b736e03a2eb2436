"""Ray's workers give the same trajectories as one process, whatever dies on the way."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rehearsal.errors import RehearsalError
from rehearsal.simulation import Scenario, scenarios
from training.policies.trained_policy import TrainedPolicy
from training.reinforcement.cluster_options import ClusterOptions
from training.reinforcement.rollout import PartTimes
from training.reinforcement.rollouts import LocalRollouts, whole_groups

ray = pytest.importorskip("ray")
from training.reinforcement.ray_rollouts import RayRollouts  # noqa: E402

Maker = Callable[..., TrainedPolicy]
GROUPS = [scenario for scenario in scenarios("toy_reach", "train", 7) for _ in range(4)]
OPTIONS = {"temperature": 1.6, "random_key": (3, 3, 1, 0)}
ONCE, ALWAYS, REFUSED = scenarios("toy_reach", "held_out", 3)


def mortal(toy: type, marker: Path) -> type:
    """Returns the toy whose process is killed in the middle of a piece: once in ONCE, always in ALWAYS."""

    class Mortal(toy):  # type: ignore[misc]
        def reset(self, chosen: Sequence[Scenario]) -> None:
            super().reset(chosen)
            self.chosen = list(chosen)
            if REFUSED in chosen:
                raise RehearsalError("no such scenario here")

        def step(self, worlds: Sequence[int], actions: np.ndarray) -> None:
            super().step(worlds, actions)
            if self.steps.max() < 8:
                return
            if ALWAYS in self.chosen or (ONCE in self.chosen and not marker.exists()):
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return Mortal


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def workers(cluster: None, toy: Any, toy_policy: Maker, tmp_path: Path) -> Iterator[RayRollouts]:
    simulator = mortal(toy, tmp_path / "died")
    policy = toy_policy(seed=9)
    options = ClusterOptions(workers=2, deaths_a_piece=2)
    found = RayRollouts(lambda: (LocalRollouts(simulator(tolerance=0.3, max_worlds=8)), policy), options, 8)
    yield found
    found.close()


def same(first: Any, second: Any) -> None:
    """Log-probabilities may differ in their last bits, because a batch of another size may."""
    ours, theirs = (each.select(range(len(each))).arrays() for each in (first, second))
    assert np.allclose(ours.pop("log_probs"), theirs.pop("log_probs"), atol=1e-4)
    assert all(np.array_equal(array, theirs[name]) for name, array in ours.items())


def test_workers_sample_what_one_process_samples_and_outlive_a_death(
    workers: RayRollouts, toy: Any, toy_policy: Maker
) -> None:
    """In order: a draw; another with other weights; greedy; a killed process; two; a user's error; a last draw."""
    local = LocalRollouts(toy(tolerance=0.3))

    def both(policy: TrainedPolicy, chosen: Sequence[Scenario], step: int) -> tuple[Any, Any]:
        return tuple(each.sample(policy, chosen, policy_step=step, **OPTIONS) for each in (workers, local))

    policy, times = toy_policy(), PartTimes()
    expected = local.sample(policy, GROUPS, policy_step=5, **OPTIONS)
    found = workers.sample(policy, GROUPS, policy_step=5, times=times, **OPTIONS)
    same(found, expected)
    assert set(found.policy_step) == {5} and found.success.any() and not found.success.all()
    assert {"sampling", "physics", "policy", "weights"} <= times.seconds.keys()
    with torch.no_grad():
        for weights in policy.model.parameters():
            weights.mul_(1.1)
    later, again = both(policy, GROUPS, 6)
    same(later, again)
    assert set(later.policy_step) == {6} and not np.array_equal(later.tokens[:28], found.tokens[:28])
    ours, theirs = (each.greedy(policy, GROUPS[::4], decoding="argmax", policy_step=6) for each in (workers, local))
    assert np.array_equal(ours.success, theirs.success) and np.array_equal(ours.steps, theirs.steps)
    same(*both(policy, [*GROUPS[:12], *[ONCE] * 4, *GROUPS[12:]], 6))
    with pytest.raises(RehearsalError, match=r"piece \d of a draw of 2 has cost 2 rollout workers"):
        workers.sample(policy, [*GROUPS[:4], *[ALWAYS] * 4], policy_step=6, **OPTIONS)
    with pytest.raises(RehearsalError, match="^no such scenario here$"):
        workers.sample(policy, [REFUSED], policy_step=6, **OPTIONS)
    same(*both(policy, GROUPS, 6))


def test_more_workers_than_the_cluster_has_cores_for_are_refused(cluster: None) -> None:
    with pytest.raises(RehearsalError, match="need 40 CPUs and the Ray cluster has 2"):
        RayRollouts(lambda: None, ClusterOptions(workers=20, cpus_a_worker=2), 8)  # type: ignore[arg-type,return-value]


def test_pieces_are_whole_groups() -> None:
    pieces = whole_groups(GROUPS, 3)
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 12), (12, 20), (20, 28)]
    assert len(whole_groups(GROUPS[:4], 3)) == 1
    assert [piece.stop for piece in whole_groups(GROUPS, 99)] == [4, 8, 12, 16, 20, 24, 28]
