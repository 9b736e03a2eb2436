"""One process of the engine's tests: a minibatch's gradients, a few steps, a checkpoint, a critic.

Started as `engine_process.py KIND PRECISION FOLDER` with torch's variables of rank and address set; FOLDER holds
`policy` and `batch.pt`, which the test wrote. The first process writes `KIND_PRECISION.pt` there.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import torch

from training.engine.engine import Engine, EngineOptions, make_engine
from training.policies.trained_policy import load_token_policy
from training.reinforcement.critic import CriticConfig, CriticUpdate
from training.reinforcement.policy_update import PolicyUpdate, SurrogateConfig
from training.reinforcement.trajectory import Trajectories

FRAMES = (1000, 15, 4)
"""Passes of whole shares, of halves, and of a few frames, the last of them fewer than there are processes."""


def gradients(update: PolicyUpdate) -> dict[str, torch.Tensor]:
    found = {}
    for name, weights in update.trained.module.named_parameters():
        grad = weights.grad
        found[name.removeprefix("module.")] = grad.full_tensor() if hasattr(grad, "full_tensor") else grad
    return found


def run(engine: Engine, folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    stored = torch.load(folder / "batch.pt")
    advantages = stored.pop("advantages").numpy()
    batch = Trajectories.from_arrays({name: tensor.numpy() for name, tensor in stored.items()})

    def update(frames: int, **options: Any) -> PolicyUpdate:
        policy = load_token_policy(folder / "policy")
        config = SurrogateConfig(frames_a_forward=frames, learning_rate=1e-3, minibatches=2, **options)
        return PolicyUpdate(policy, config, engine)

    found: dict[str, Any] = {"gradients": {}}
    for frames in FRAMES:
        one = update(frames)
        one._minibatch(batch, advantages)
        found["gradients"][frames] = gradients(one)
    steady = update(15, kl_coefficient=0.1)
    found["scalars"] = [steady.learn(batch, advantages, step) for step in range(2)]
    found["state"] = copy.deepcopy(steady.state())
    found["weights"] = {name: tensor.clone() for name, tensor in steady.policy.model.state_dict().items()}
    found["third"] = steady.learn(batch, advantages, 2)
    resumed = update(15, kl_coefficient=0.1)
    resumed.load_state(found["state"])
    found["third_resumed"] = resumed.learn(batch, advantages, 2)
    critic = CriticUpdate(steady.policy, CriticConfig(learning_rate=1e-3), seed=0, frames_a_forward=4, engine=engine)
    found["critic"] = critic.learn(batch, advantages, step=0)
    found["values"] = torch.from_numpy(critic.values(batch))
    return found


def main() -> None:
    kind, precision, folder = sys.argv[1:]
    engine = make_engine(EngineOptions(kind=kind, precision=precision))  # type: ignore[arg-type]
    found = run(engine, Path(folder))
    if engine.rank == 0:
        torch.save(found, Path(folder) / f"{kind}_{precision}.pt")
    engine.close()


if __name__ == "__main__":
    main()
