"""The seam between learning and what carries it out: plain torch on one device, or accelerate on many.

A learner cuts a minibatch into passes of which every process takes its share (`shares`); the weights of a minibatch's
tokens are normalised over all of it, so gradients are summed over passes and processes, not averaged, and any number
of passes and processes gives the same step.
"""

import logging
import os
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import msgspec
import torch
from torch import Tensor, nn

from rehearsal.errors import RehearsalError
from training.engine.channel import Channel, OneProcess
from training.engine.precision import Precision, computing_in, learn_in_float32

EngineKind = Literal["local", "ddp", "fsdp"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What carries the learning out; ddp and fsdp are started by torchrun or accelerate launch."""

    kind: EngineKind = "local"
    """local: one process; ddp: a whole model on every device; fsdp: weights, gradients and optimiser in shards."""
    precision: Precision = "float32"
    """bfloat16: passes compute in it; the weights that learn are kept in float32."""


class Trainable(Protocol):
    """A module in training and its optimiser; `module` is what is called, everywhere with the same number of passes."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def optimiser(self) -> torch.optim.Optimizer: ...

    def one_pass(self, *, last: bool) -> AbstractContextManager[None]:
        """Within it one forward and one backward pass; last: the optimiser steps next."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of this process's part of the loss; the parts of all processes are summed."""
        ...

    def step(self, gradient_clip: float) -> float:
        """Clips the gradient to that norm, moves the weights, forgets the gradient; returns the norm before."""
        ...

    def publish(self, target: nn.Module) -> None:
        """Copies the weights to `target`, a whole module of the same names, where it is another one."""
        ...

    def state(self) -> dict[str, Any]:
        """Returns `model` and `optimiser`, whole, on the CPU where they were in shards; None but in the first process.

        Tensors may be those that go on learning.
        """
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave; only the first process's is read."""
        ...


class Engine(Protocol):
    """rank: of this process among `ranks`; device: its own. whole: whether prepared modules keep their weights whole,
    so that the module that learns can be the one that samples.
    """

    precision: Precision

    @property
    def rank(self) -> int: ...

    @property
    def ranks(self) -> int: ...

    @property
    def processes_a_machine(self) -> int: ...

    @property
    def device(self) -> str | None:
        """The device of this process; None: whichever the run asks for."""
        ...

    @property
    def whole(self) -> bool: ...

    def prepare(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> Trainable: ...

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Returns each value summed over the processes."""
        ...

    def channel(self) -> Channel:
        """Returns a channel of its own, so that two threads never mix what they say."""
        ...

    def close(self) -> None: ...


class LocalTrainable:
    def __init__(self, module: nn.Module, optimiser: torch.optim.Optimizer, precision: Precision) -> None:
        self.module = module
        self.optimiser = optimiser
        self.precision = precision

    def one_pass(self, *, last: bool) -> AbstractContextManager[None]:
        return computing_in(self.precision, self.module)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, gradient_clip: float) -> float:
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), gradient_clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(norm)

    def publish(self, target: nn.Module) -> None:
        """The target is the module that has learned."""

    def state(self) -> dict[str, Any]:
        return {"model": self.module.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])


class LocalEngine:
    """Plain torch in this process."""

    rank = 0
    ranks = 1
    processes_a_machine = 1
    device = None
    whole = True

    def __init__(self, precision: Precision = "float32") -> None:
        self.precision: Precision = precision

    def prepare(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> LocalTrainable:
        if self.precision == "bfloat16":
            learn_in_float32(module)
        return LocalTrainable(module, optimiser, self.precision)

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        return values

    def channel(self) -> Channel:
        return OneProcess()

    def close(self) -> None:
        """Nothing was started."""


def make_engine(options: EngineOptions) -> Engine:
    """Returns the engine asked for; raises RehearsalError when its packages or its launcher are missing."""
    if options.kind == "local":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RehearsalError(
                f"engine.kind = 'local' in {os.environ['WORLD_SIZE']} processes: every one would train alone; "
                "give --engine.kind fsdp or ddp, or start one process"
            )
        return LocalEngine(options.precision)
    # Imported here, so that one device needs no accelerate.
    from training.engine.accelerate_engine import AccelerateEngine

    engine = AccelerateEngine(options.kind, options.precision)
    if engine.rank:
        logging.getLogger("training").setLevel(logging.ERROR)  # the first process tells how the run stands
    return engine
