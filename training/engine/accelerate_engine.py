"""The engine on many devices and machines: accelerate with DDP, or with FSDP2 (torch's `fully_shard`).

FSDP shards each repeated block (transformer layers) by itself and the rest with the root. Gradients are exchanged in
every pass under FSDP, because waiting would keep them whole, and in the last pass alone under DDP. Both average over
the processes, so a loss is multiplied by their number. Checkpoints hold whole tensors, whichever number of processes.

What this program says rules over what a launcher's file says: kind and precision come from the run's config.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rehearsal.errors import RehearsalError
from training.engine.blocks import repeated_blocks
from training.engine.precision import Precision, computing_in, learn_in_float32

try:
    from accelerate import (
        Accelerator,
        DistributedDataParallelKwargs,
        FullyShardedDataParallelPlugin,
        PartialState,
    )
    from accelerate.utils import DistributedType
except ImportError as error:
    raise RehearsalError(
        f"engine.kind = 'ddp' or 'fsdp' needs accelerate ({error}): pip install -e '.[cluster]'; on one device: local"
    ) from None
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import MixedPrecisionPolicy

T = TypeVar("T")
# While one process draws a batch the others wait for it; rollouts of large models take the better part of an hour.
PATIENCE = datetime.timedelta(hours=6)


class RankChannel:
    """Objects between the processes, over gloo: through host memory, whatever carries the gradients."""

    def __init__(self) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)

    def gather(self, value: T) -> list[T]:
        found: list[Any] = [None] * self.ranks
        dist.all_gather_object(found, value, group=self._group)
        return found

    def lead(self, make: Callable[[], T | None]) -> T:
        sent: list[Any] = [None, None]
        if self.rank == 0:
            try:
                sent = [make(), None]
            except RehearsalError as error:  # the others would wait for ever for what does not come
                sent = [None, error]
        dist.broadcast_object_list(sent, src=0, group=self._group)
        if sent[1] is not None:
            raise sent[1]
        return sent[0]


class AccelerateTrainable:
    """See Trainable."""

    def __init__(
        self,
        accelerator: Accelerator,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        precision: Precision,
        *,
        sharded: bool,
    ) -> None:
        """module: as accelerate prepared it. optimiser: torch's own, whose parameters are the module's."""
        self.accelerator = accelerator
        self.module = module
        self.optimiser = optimiser
        self.precision = precision
        self.sharded = sharded

    @contextmanager
    def one_pass(self, *, last: bool) -> Iterator[None]:
        if self.sharded:
            yield
            return
        exchange = contextlib.nullcontext() if last else self.accelerator.no_sync(self.module)
        with computing_in(self.precision, self.module), exchange:
            yield

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss * self.accelerator.num_processes)

    def step(self, gradient_clip: float) -> float:
        # torch's own, which knows shards: accelerate's cannot tell two models of one run apart.
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), gradient_clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(_whole(norm))

    def publish(self, target: nn.Module) -> None:
        if not self.sharded:
            return
        with torch.no_grad():
            own = dict(target.named_parameters())
            for name, weights in self.module.named_parameters():
                own[name].copy_(_whole(weights))  # one tensor at a time is whole

    def state(self) -> dict[str, Any]:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model = get_model_state_dict(self.module, options=options)
        # Before its first step an optimiser has no state, and asking for it would invent one.
        begun = bool(self.optimiser.state)
        optimiser = get_optimizer_state_dict(self.module, self.optimiser, options=options) if begun else None
        first = not self.accelerator.process_index
        return {"model": model if first else None, "optimiser": optimiser if first else None}

    def load_state(self, state: dict[str, Any]) -> None:
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(self.module, state["model"] or {}, options=options)
        begun = torch.tensor(int(state["optimiser"] is not None), device=self.accelerator.device)
        if self.accelerator.reduce(begun, reduction="sum"):
            set_optimizer_state_dict(self.module, self.optimiser, state["optimiser"] or {}, options=options)


class AccelerateEngine:
    """See Engine."""

    def __init__(self, kind: Literal["ddp", "fsdp"], precision: Precision) -> None:
        """Raises RehearsalError when this process was not started by a launcher."""
        if "RANK" not in os.environ:
            raise RehearsalError(
                f"engine.kind = {kind!r}, but this is a process by itself: start it with "
                "`accelerate launch` or `torchrun --nproc-per-node N`, or give --engine.kind local"
            )
        self.precision: Precision = precision
        self.whole = kind == "ddp"
        self._plugin = None if self.whole else fsdp_plugin(precision)
        self._accelerator = make_accelerator(self._plugin)
        self.rank = self._accelerator.process_index
        self.ranks = self._accelerator.num_processes
        self.processes_a_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        device = self._accelerator.device
        self.device = "cpu" if device.type == "cpu" else str(device)

    def prepare(self, module: nn.Module, optimiser: torch.optim.Optimizer) -> AccelerateTrainable:
        if self.precision == "bfloat16":
            learn_in_float32(module)
        if self._plugin is not None:
            kinds = {type(block).__name__ for block in repeated_blocks(module)}
            self._plugin.transformer_cls_names_to_wrap = sorted(kinds)
        prepared, _ = self._accelerator.prepare(module, optimiser)
        return AccelerateTrainable(
            self._accelerator, prepared, optimiser, self.precision, sharded=self._plugin is not None
        )

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=self._accelerator.device)
        total = self._accelerator.reduce(numbers, reduction="sum")
        return dict(zip(values, total.tolist(), strict=True))

    def channel(self) -> RankChannel:
        return RankChannel()

    def close(self) -> None:
        self._accelerator.end_training()


def fsdp_plugin(precision: Precision) -> FullyShardedDataParallelPlugin:
    """bfloat16: blocks are gathered in it; autocast would keep a cast copy of every block until the backward pass."""
    policy = None
    if precision == "bfloat16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[],
        cpu_ram_efficient_loading=False,
        mixed_precision_policy=policy,
    )


def make_accelerator(plugin: FullyShardedDataParallelPlugin | None) -> Accelerator:
    """Returns accelerate's object; plugin: that of FSDP, None for DDP."""
    # A value head or a projector may take no part in a pass.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    accelerator = Accelerator(
        mixed_precision="no",
        cpu=not torch.cuda.is_available(),
        fsdp_plugin=plugin,
        kwargs_handlers=None if plugin is not None else handlers,
    )
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Accelerate offers FSDP on GPUs alone; fully_shard runs on gloo as well, through the same code.
        PartialState().distributed_type = accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    return accelerator


def _whole(tensor: Any) -> Tensor:
    """Returns a tensor in shards as one; every process takes part."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
