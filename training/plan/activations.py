"""How much memory a pass through a model keeps for its backward pass, found without allocating any.

The model runs once on one frame and once on two, on fake tensors that have shapes and no memory; what autograd saves is
counted by storage, so views and reused tensors count once, and weights not at all. So the figure follows the model as
it is, whatever its family, adapters, frozen parts or gradient checkpointing.

The peak of a backward pass is more than what was saved: gradients of activations live for a moment, taken as two more
of the largest tensor saved; one weight's gradient lives beside the sum it goes into; and with gradient checkpointing
one layer's activations are there again. Torch's own profile of small models on a CPU agrees within a factor of
`AGREEMENT` (tests/training/cluster/test_plan.py). Kernels on a GPU may save other things: leave some room.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from training.policies.token_distribution import log_probs_and_entropy

AGREEMENT = 1.5
"""Torch's measured peak over the estimate, or the other way round, is at most this."""

# One frame's shape and type, by the name of the model's input.
InputShapes = dict[str, tuple[tuple[int, ...], torch.dtype]]


@dataclass(frozen=True)
class Activations:
    """Bytes of a pass: `fixed` whatever the frames, and `a_frame` for each."""

    fixed: int
    a_frame: int

    def of(self, frames: int) -> int:
        return self.fixed + self.a_frame * frames

    def with_one_layer_of(self, whole: "Activations", layers: int) -> "Activations":
        """Returns this pass of checkpointed layers and what one of them keeps in `whole`, the pass without."""
        return Activations(
            fixed=self.fixed + max(0, whole.fixed - self.fixed) // layers,
            a_frame=self.a_frame + (whole.a_frame - self.a_frame) // layers,
        )

    def frames_in(self, budget: int) -> int:
        """Returns how many frames a pass of at most `budget` bytes can have; 0 when not even one."""
        return max(0, (budget - self.fixed) // self.a_frame)


def estimate_activations(model: nn.Module, inputs: InputShapes, *, autocast: bool = False) -> Activations:
    """model: on any device, also `meta`; only the shapes and types of its weights are read, and what learns of them."""
    one, two = (_pass_bytes(model, inputs, frames, autocast) for frames in (1, 2))
    return Activations(fixed=2 * one - two, a_frame=two - one)


def _pass_bytes(model: nn.Module, inputs: InputShapes, frames: int, autocast: bool) -> int:
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        batch = {name: torch.zeros((frames, *shape), dtype=dtype) for name, (shape, dtype) in inputs.items()}
        kept = _Saved()
        with kept, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = functional_call(model, state, (), batch)
            tokens = torch.zeros(logits.shape[:-1], dtype=torch.int64)
            scores = log_probs_and_entropy(logits, tokens)
        own = {_storage(tensor) for tensor in state.values()}
        sizes = kept.sizes(own) + [tensor.untyped_storage().nbytes() for tensor in tree_leaves((batch, scores))]
    gradients = [tensor.untyped_storage().nbytes() for tensor in state.values() if tensor.requires_grad]
    return sum(sizes) + 2 * max(sizes) + max(gradients)


class _Saved(saved_tensors_hooks):
    """Remembers what autograd saves, so that no storage's number is used twice."""

    def __init__(self) -> None:
        self._tensors: dict[int, Tensor] = {}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        self._tensors[_storage(tensor)] = tensor
        return tensor

    def sizes(self, left_out: set[int]) -> list[int]:
        """Returns the bytes of each storage saved, but for those left out."""
        return [
            tensor.untyped_storage().nbytes()
            for storage, tensor in self._tensors.items()
            if storage not in left_out
        ]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def measured_peak(step: Callable[[], object]) -> int:
    """Returns the most bytes that `step` had allocated at once on the CPU beyond those before, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
