"""A policy in training: the weights that learn, as an engine keeps them, and the whole ones that act and are saved."""

from typing import Any

import torch
from torch import Tensor, nn

from training.engine.engine import Engine, EngineOptions, LocalEngine, Trainable
from training.engine.precision import gathered_as
from training.policies.trained_policy import TrainedPolicy

# What a checkpoint leaves out of the names of weights, which are those of the policy's model.
OWN = "model."


class TokenScores(nn.Module):
    """A policy's scoring as one module, so that an engine can follow its passes whatever the family does in them."""

    def __init__(self, policy: TrainedPolicy) -> None:
        super().__init__()
        self.model = policy.model
        self._policy = policy

    def forward(self, inputs: dict[str, Tensor], tokens: Tensor) -> Tensor:
        """See TrainedPolicy.token_logits."""
        return self._policy.token_logits(inputs, tokens)


class LearningPolicy:
    """`policy` acts; `trained` learns. Where the engine keeps weights in shards they are two, and `publish` copies."""

    def __init__(
        self, policy: TrainedPolicy, engine: Engine | None, *, learning_rate: float, weight_decay: float
    ) -> None:
        """engine: plain torch by default. The optimiser is AdamW with the usual betas."""
        self.policy = policy
        self.engine = engine or LocalEngine()
        self._acting = scores = TokenScores(policy)
        if not self.engine.whole:
            scores = TokenScores(policy.duplicate())
            gathered_as(self.engine.precision, policy.model)
        optimiser = torch.optim.AdamW(
            [weights for weights in scores.parameters() if weights.requires_grad],
            lr=learning_rate,
            betas=(0.9, 0.999),
            weight_decay=weight_decay,
        )
        self.trained: Trainable = self.engine.prepare(scores, optimiser)

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        return self.trained.optimiser

    @property
    def device(self) -> torch.device:
        return next(self.trained.module.parameters()).device

    def begin(self, learning_rate: float) -> None:
        """Makes the module ready to learn at that rate."""
        self.trained.module.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate

    def publish(self) -> None:
        """Ends learning for now: what acts is what has been learned."""
        self.trained.module.eval()
        self.trained.publish(self._acting)

    def state(self) -> dict[str, Any]:
        state = self.trained.state()
        if state["model"] is not None:
            state["model"] = {name.removeprefix(OWN): tensor for name, tensor in state["model"].items()}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        model = state["model"]
        if model is not None:
            model = {f"{OWN}{name}": tensor for name, tensor in model.items()}
        self.trained.load_state({"model": model, "optimiser": state["optimiser"]})
        self.trained.publish(self._acting)


def compute_for(policy: TrainedPolicy, options: EngineOptions) -> None:
    """Sets what the passes of a policy that acts compute in, so that it acts as it learns.

    FSDP gathers shards in bfloat16 as they are; weights that are whole are float32 under autocast.
    """
    policy.compute_in("float32" if options.kind == "fsdp" else options.precision)
