"""What kind of OpenVLA a published checkpoint is, and what can be done with it.

OpenVLA and OpenVLA-OFT with action tokens have the same tensors under the same names: what differs, the attention, is
in the code alone. What stands beside the weights tells them apart where anything does: side files, and the model's
code, which publishers copy along.
"""

from pathlib import Path

from rehearsal.errors import RehearsalError
from training.policies.inspection import Inspection, Verdict, read_json, statistics_of
from training.policies.openvla.checkpoint import FILM, L1_HEAD, PROPRIO, side_file
from training.policies.openvla.config import read_sizes
from training.policies.openvla.prompt import TOKENIZERS
from training.policies.openvla.statistics import STATISTICS
from training.policies.weight_headers import Tensors, read_header

MODEL_CODE = "modeling_prismatic.py"
# A constant that only OpenVLA-OFT's copy of that code knows.
OFT_MARK = "NUM_ACTIONS_CHUNK"
CHUNKS = {7: (8, "LIBERO's"), 14: (25, "ALOHA's and RoboTwin's")}
"""Action dimension -> control steps of a chunk, by convention: no file of a checkpoint states them."""


def inspect_openvla(folder: Path, tensors: Tensors) -> Inspection:
    """tensors: headers of the checkpoint's own files. Raises RehearsalError for a damaged side file."""
    config = read_json(folder)
    statistics, head = statistics_of(folder, config), _head(folder)
    pretrained = not (folder / STATISTICS).is_file() and len(statistics) > 1
    kind = _kind(folder, tensors, head, pretrained)
    state = _state_dim(folder, tensors)
    seen = f" and {state} state values" if state else ""
    fine_tune, reinforce, play = _verdicts(folder, tensors, statistics, head, pretrained)
    evaluate, serve = (
        Verdict(play.possible, f"{play.text}, then training/{script}.py") if play.possible else play
        for script in ("evaluate", "export_policy")
    )
    return Inspection(
        folder=folder,
        kind=kind,
        tensors=tensors,
        statistics=statistics,
        pictures=f"as many as it was trained with, which no file states (policy.cameras){seen}",
        actions=_layout(statistics, head, kind),
        fine_tune=fine_tune,
        reinforce=reinforce,
        evaluate=evaluate,
        serve=serve,
    )


def _head(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the action head beside the checkpoint, empty when there is none."""
    path = side_file(folder, L1_HEAD)
    return {name.removeprefix("module."): shape for name, shape, _ in read_header(path)} if path else {}


def _is_l1(head: dict[str, tuple[int, ...]]) -> bool:
    return "model.fc2.weight" in head


def _state_dim(folder: Path, tensors: Tensors) -> int:
    """Returns how many state values the checkpoint sees; 0: none."""
    path = side_file(folder, PROPRIO)
    shapes = {name.removeprefix("module."): shape for name, shape, _ in read_header(path)} if path else {}
    shape = shapes.get("fc1.weight") or tensors.shapes.get(f"{PROPRIO}.fc1.weight")
    return shape[1] if shape else 0


def _kind(folder: Path, tensors: Tensors, head: dict[str, tuple[int, ...]], pretrained: bool) -> str:
    proprio = bool(_state_dim(folder, tensors))
    beside = " and a projector of the state" if proprio else ""
    code = folder / MODEL_CODE
    text = code.read_text(encoding="utf-8", errors="replace") if code.is_file() else ""
    if head:
        return f"OpenVLA-OFT with {'an L1' if _is_l1(head) else 'a diffusion'} head{beside}"
    if proprio or OFT_MARK in text:
        return f"OpenVLA-OFT with action tokens{beside}"
    if text:
        return "OpenVLA, pretrained" if pretrained else "OpenVLA"
    if pretrained:
        return "OpenVLA, pretrained on many robots"
    return "OpenVLA or OpenVLA-OFT with action tokens: causal or bidirectional attention, which no file here states"


def _layout(statistics: dict[str, str], head: dict[str, tuple[int, ...]], kind: str) -> str:
    sizes = {int(of.split()[0]) for of in statistics.values()} - {0}
    dim = head["model.fc2.weight"][0] if _is_l1(head) else next(iter(sizes)) if len(sizes) == 1 else 0
    if not dim:
        return (
            f"of several robots: {', '.join(map(str, sorted(sizes)))} values"
            if sizes
            else "stated by no file"
        )
    if kind.startswith("OpenVLA,") or kind == "OpenVLA":
        return f"1 step x {dim}"
    steps, whose = CHUNKS.get(dim, (0, ""))
    return (
        f"{steps} steps x {dim} ({whose} convention)"
        if steps
        else f"{dim} a step; chunk_steps stated by no file"
    )


def _verdicts(
    folder: Path,
    tensors: Tensors,
    statistics: dict[str, str],
    head: dict[str, tuple[int, ...]],
    pretrained: bool,
) -> tuple[Verdict, Verdict, Verdict]:
    """Returns those of fine-tuning, of reinforcing and of acting as it is."""
    if fault := _fault(folder, tensors):
        return (Verdict(False, fault),) * 3
    tune = Verdict(True, f"python training/sft.py --checkpoint {folder}")
    if pretrained:
        first = Verdict(
            False, f"it was trained on {len(statistics)} datasets of other robots: fine-tune it first"
        )
        return tune, first, first
    if not statistics:
        first = Verdict(False, f"it has no {STATISTICS}: copy it from the checkpoint, or fine-tune first")
        return tune, first, first
    load = f"python training/import_openvla.py --checkpoint {folder}" + " --statistics NAME" * (
        len(statistics) > 1
    )
    if head:
        untrained = "its language-model head was not trained for action tokens: fine-tune those first"
        if not _is_l1(head):
            return tune, Verdict(False, untrained), Verdict(False, "a diffusion head is not supported")
        return tune, Verdict(False, untrained), Verdict(True, f"{load} --policy.head l1")
    look = (
        f"{load}, then training/grpo.py; whether its tokens were trained: this command with --demonstrations"
    )
    return tune, Verdict(True, look), Verdict(True, load)


def _fault(folder: Path, tensors: Tensors) -> str:
    """Returns why the checkpoint cannot be read here, empty when it can."""
    if tensors.missing:
        count = len(tensors.files) + len(tensors.missing)
        return f"{len(tensors.missing)} of {count} shards are missing; copy the checkpoint again"
    if side_file(folder, FILM):
        return "its vision backbone is modulated by the instruction (FiLM), which is not supported"
    try:
        read_sizes(folder)
    except RehearsalError as error:
        return str(error)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return f"it has no {' or '.join(TOKENIZERS)}; copy it from the checkpoint"
    return ""
