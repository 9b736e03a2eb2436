"""`--plan`: what a run would need, printed before anything is allocated; a run that cannot fit is refused.

Sizes come from the checkpoint's or the policy's `config.json`; no weight is read. GPU memory beyond the parts named is
covered by a reserve (device_memory.RESERVE), and activations are an estimate (activations.AGREEMENT).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from rehearsal.errors import RehearsalError
from training.plan.activations import Activations
from training.plan.device_memory import (
    GIB,
    RESERVE,
    DeviceMemory,
    Setting,
    activations_of,
    alternatives,
    device_memory,
    frames_a_forward,
    usable,
)
from training.plan.outline import MakeOutline


class HardwareOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What --plan plans for; training itself uses what there is."""

    devices: int = 1
    """Devices that learn, over all machines."""
    device_gib: float = 80.0
    """Memory of each [GiB]."""

    def __post_init__(self) -> None:
        if self.devices < 1 or self.device_gib <= 0:
            raise ValueError(f"devices must be at least 1 and device_gib above 0: {self.devices}, {self.device_gib}")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one batch asks of the devices.

    trajectories, control_steps: of a batch, at most; 0 for SFT, which has none. frames: decisions. optimiser_steps:
    of the policy. epochs: update passes over a frame. reference: whether a reference model passes each frame too.
    """

    frames: int
    frames_a_forward: int
    optimiser_steps: int
    trajectories: int = 0
    control_steps: int = 0
    epochs: int = 1
    reference: bool = False
    recomputed: bool = False


@dataclass(frozen=True)
class Plan:
    setting: Setting
    hardware: HardwareOptions
    work: Work
    activations: Activations

    @property
    def memory(self) -> DeviceMemory:
        """Of a device in a pass of frames_a_forward frames."""
        return device_memory(self.setting, self.activations.of(self.work.frames_a_forward))

    @property
    def limit(self) -> float:
        return usable(self.hardware.device_gib * GIB)

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.limit

    @property
    def largest_frames(self) -> int:
        return frames_a_forward(self.setting, self.activations, self.hardware.device_gib * GIB)


def make_plan(setting: Setting, hardware: HardwareOptions, work: Work) -> Plan:
    """Raises RehearsalError for an engine that does not spread over the devices."""
    if setting.engine.kind == "local" and hardware.devices > 1:
        raise RehearsalError(
            f"hardware.devices = {hardware.devices}, but engine.kind = 'local' learns on one: give --engine.kind fsdp, "
            "or ddp for a model that fits whole"
        )
    return Plan(setting, hardware, work, activations_of(setting))


def show_plan(plan: Plan, make: MakeOutline) -> None:
    """Prints the plan; raises RehearsalError with what to change when it cannot fit."""
    print("\n".join(lines(plan)))
    if not plan.fits:
        raise RehearsalError(refusal(plan, make))


def lines(plan: Plan) -> Iterator[str]:
    """Yields what the plan says."""
    setting, memory, work = plan.setting, plan.memory, plan.work
    outline, engine = setting.outline, setting.engine
    lora = setting.training.lora.rank
    yield (
        f"{type(outline.model).__name__}: {outline.parameters:,} weights in {outline.weights}, {outline.learning:,} of "
        f"them learn ({f'adapters of rank {lora}' if lora else 'no adapters'}); engine {engine.kind}, passes in "
        f"{engine.precision}, {setting.devices} x {plan.hardware.device_gib:g} GiB"
    )
    yield f"{'GiB a device':24} {'':>8}"
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimiser": memory.optimiser,
        f"activations, {work.frames_a_forward} frames": memory.activations,
        "rollout replica": memory.replica,
        "together": memory.total,
        f"usable, less {RESERVE:.0%}": plan.limit,
    }
    for name, size in parts.items():
        yield f"  {name:24} {size / GIB:8.2f}"
    yield f"largest frames_a_forward that fits: {plan.largest_frames}"
    yield from work_lines(work, setting.devices)


def work_lines(work: Work, devices: int) -> Iterator[str]:
    """Yields passes, steps and sizes of a batch."""
    update = (3 if work.recomputed else 2) * work.epochs
    passes = {"rollout": int(work.trajectories > 0), "update": update, "reference": work.epochs * int(work.reference)}
    said = ", ".join(f"{name} {count}" for name, count in passes.items() if count)
    peer = "; SimpleVLA-RL's code: 4 forward and 1 backward" if work.trajectories else ""
    recomputed = ", layers again" if work.recomputed else ""
    yield f"passes over a frame: {sum(passes.values())} ({said}; update: forward and backward{recomputed}){peer}"
    if work.trajectories:
        yield (
            f"a batch: {work.trajectories} trajectories, at most {work.control_steps:,} control steps and "
            f"{work.frames:,} frames"
        )
    else:
        yield f"a batch: {work.frames:,} frames"
    a_step = -(-work.frames * work.epochs // work.optimiser_steps)
    rounds = -(-a_step // (work.frames_a_forward * devices))
    yield (
        f"optimiser steps a batch: {work.optimiser_steps}, each of at most {a_step:,} frames: {rounds} passes a device"
    )


def refusal(plan: Plan, make: MakeOutline) -> str:
    """Returns one line that says what is missing and what would do."""
    need, there = plan.memory.total / GIB, plan.limit / GIB
    text = f"{need:.1f} GiB a device are needed and {there:.1f} of {plan.hardware.device_gib:g} can be used: "
    if plan.largest_frames:
        return text + f"give --training.frames-a-forward {plan.largest_frames}"
    found: dict[bool, str] = {}
    for words, setting in alternatives(plan.setting, make):
        # More devices are one way out, less to keep on each another: the first that fits of both.
        spread = setting.devices > plan.setting.devices
        if spread in found or device_memory(setting, 0).total > plan.limit:
            continue
        if frames := frames_a_forward(setting, activations_of(setting), plan.hardware.device_gib * GIB):
            found[spread] = f"{words}, --training.frames-a-forward {min(frames, plan.work.frames_a_forward)}"
    return text + ("; or ".join(found.values()) or "no number of such devices up to 64 would do: take larger ones")
