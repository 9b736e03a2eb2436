"""The published checkpoint layout, read and written: safetensors in one file or in shards with an index.

Everything a checkpoint holds comes back under its own name, in its own shape and with its own values, also the
tensors that no output depends on (the last vision blocks, norms and the pooling). Heads stand in files of their own,
`action_head--<step>_checkpoint.pt` and `proprio_projector--<step>_checkpoint.pt`; SimpleVLA-RL keeps the projector
inside the model, where it is read and written too.
"""

import json
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rehearsal.errors import RehearsalError
from training.policies.openvla.config import CONFIG, OpenVLASizes, read_object, read_sizes
from training.policies.openvla.model import OpenVLA, on_meta, read_pixels
from training.policies.openvla.options import Attention
from training.policies.openvla.vision import (
    DINO_POSITIONS,
    SIGLIP_POSITIONS,
    own_positions,
    published_positions,
    published_vision_names,
)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
L1_HEAD, PROPRIO = "action_head", "proprio_projector"
FILM = "vision_backbone"
"""Side file of a vision backbone that the instruction modulates (FiLM), which this model has not."""
SHARD_BYTES = 5 * 10**9
BESIDE = ("preprocessor_config.json", "dataset_statistics.json", "tokenizer.json", "tokenizer.model")
"""Files of a checkpoint that are copied along with it."""


def load_openvla_model(
    folder: Path,
    *,
    chunk_steps: int,
    action_dim: int,
    attention: Attention = "bidirectional",
    dtype: torch.dtype | None = None,
) -> OpenVLA:
    """Reads a checkpoint's folder; dtype: that of the file by default.

    A projector of the state inside the model goes before one beside it, which was the start of its training.
    Raises RehearsalError for a missing shard, a damaged file, a tensor that is missing, unknown or of another shape,
    a head for another number of actions, and a vision backbone with FiLM.
    """
    sizes = read_sizes(folder)
    if film := side_file(folder, FILM):
        raise RehearsalError(f"{film}: its vision backbone has FiLM, which is not supported; take a checkpoint without")
    published = read_tensors(folder)
    inside = _take(published, f"{PROPRIO}.")
    proprio = inside or side_tensors(folder, PROPRIO)
    if proprio and "fc1.weight" not in proprio:
        raise RehearsalError(f"{folder}: its {PROPRIO} has no fc1.weight; copy the checkpoint again")
    l1_head = side_tensors(folder, L1_HEAD)
    with on_meta():
        model = OpenVLA(
            sizes,
            chunk_steps=chunk_steps,
            action_dim=action_dim,
            attention=attention,
            state_dim=proprio["fc1.weight"].shape[1] if proprio else 0,
            l1_head=bool(l1_head),
        )
    model.proprio_inside = bool(inside)
    own, model.unused = own_tensors(published, sizes, folder)
    own |= {f"proprio.{name}": tensor for name, tensor in proprio.items()}
    own |= {f"l1_head.{name}": tensor for name, tensor in l1_head.items()}
    _assign(model, own, folder)
    if dtype is not None:
        model.to(dtype)
    fill_buffers(model)
    model.set_pixels(*read_pixels(folder))
    return model.eval()


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Returns all tensors of a checkpoint by published name; raises RehearsalError for a missing or damaged file."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with _readable(path), safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    return tensors


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what reading a damaged file raises into one line."""
    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RehearsalError(
            f"{path} ({path.stat().st_size} bytes) cannot be read: {reason}; copy it again, or, where it is "
            "but a pointer, run `git lfs pull`"
        ) from None


def weight_files(folder: Path) -> list[Path]:
    """Returns the weight files of a checkpoint; raises RehearsalError when there are none or one is missing."""
    index = folder / INDEX
    if index.is_file():
        places = read_object(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise RehearsalError(f"{index} has no weight_map; copy the checkpoint again")
        names = sorted(set(places.values()))
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise RehearsalError(
                f"{folder}: shard {missing[0]} is missing ({len(missing)} of {len(names)}); copy the checkpoint again"
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    raise RehearsalError(f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX}")


def side_tensors(folder: Path, kind: str) -> dict[str, Tensor]:
    """Returns the tensors of a side file `<kind>--*_checkpoint.pt`, none when there is no such file.

    Names that a data-parallel wrapper put `module.` before are bared.
    """
    path = side_file(folder, kind)
    if path is None:
        return {}
    with _readable(path):
        state = torch.load(path, map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def side_file(folder: Path, kind: str) -> Path | None:
    """Returns the side file `<kind>--<step>_checkpoint.pt` of the latest step, None when there is none."""
    files = sorted(folder.glob(f"{kind}--*_checkpoint.pt"), key=lambda path: _step(path, kind))
    return files[-1] if files else None


def _step(path: Path, kind: str) -> tuple[int, str]:
    step = path.name.removeprefix(f"{kind}--").removesuffix("_checkpoint.pt")
    return (int(step), "") if step.isdigit() else (0, step)


def own_tensors(
    published: dict[str, Tensor], sizes: OpenVLASizes, folder: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the model's tensors by our names, and those it does not use by published name; empties `published`."""
    own: dict[str, Tensor] = {}
    names = published_vision_names(sizes)
    wanted = [*names, DINO_POSITIONS, SIGLIP_POSITIONS]
    if missing := [name for name in wanted if name not in published]:
        raise RehearsalError(f"{folder}: {missing[0]} is missing ({len(missing)} tensors in all): not OpenVLA's layout")
    own |= {f"vision.{name}": tensor for name, tensor in own_positions(published).items()}
    for name in (DINO_POSITIONS, SIGLIP_POSITIONS):
        del published[name]
    for name, targets in names.items():
        parts = published.pop(name).chunk(len(targets))
        own |= {f"vision.{target}": part for target, part in zip(targets, parts, strict=True)}
    unused = {}
    for name in list(published):
        tensor = published.pop(name)
        if name.startswith("vision_backbone."):
            unused[name] = tensor
        else:
            own[name] = tensor
    return own, unused


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Removes the tensors whose name begins with `prefix` and returns them without it."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _assign(model: OpenVLA, own: dict[str, Tensor], folder: Path) -> None:
    """Puts the tensors into the model without copying them; raises RehearsalError when they do not fit."""
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        if name not in own:
            raise RehearsalError(f"{folder}: {name} is missing; copy the checkpoint again")
        if own[name].shape != shape:
            raise RehearsalError(
                f"{folder}: {name} is {tuple(own[name].shape)}; its {CONFIG} and {model.action_dim} actions a step "
                f"want {tuple(shape)}"
            )
    if unknown := sorted(own.keys() - expected.keys()):
        raise RehearsalError(f"{folder}: unknown tensor {unknown[0]} ({len(unknown)} in all): not OpenVLA's layout")
    model.load_state_dict(own, assign=True)


def fill_buffers(model: OpenVLA) -> None:
    """Makes the buffers that no file holds, after the model was made on the meta device: frequencies and indices."""
    rotary = model.language_model.model.rotary_emb
    model.language_model.model.rotary_emb = type(rotary)(config=model.sizes.llama)
    siglip = model.vision.siglip.embeddings
    siglip.position_ids = torch.arange(siglip.num_positions)[None]


def published_tensors(model: OpenVLA) -> Iterator[tuple[str, Tensor]]:
    """Yields every tensor of the model file by published name."""
    state = model.state_dict()
    vision = {name.removeprefix("vision."): tensor for name, tensor in state.items() if name.startswith("vision.")}
    yield from published_positions(vision).items()
    for name, parts in published_vision_names(model.sizes).items():
        yield name, torch.cat([vision[part] for part in parts]) if len(parts) > 1 else vision[parts[0]]
    yield from model.unused.items()
    for name, tensor in state.items():
        if name.startswith(("projector.", "language_model.")):
            yield name, tensor
        elif name.startswith("proprio.") and model.proprio_inside:
            yield name.replace("proprio", PROPRIO, 1), tensor


def save_openvla(model: OpenVLA, folder: Path, beside: Path | None = None) -> None:
    """Writes the checkpoint as published ones are: shards of at most 5 GB with an index, or one file.

    beside: a checkpoint's folder whose tokeniser and statistics are copied along. Another checkpoint's weights and
    heads that are in the folder already are removed: they would be read in place of, or along with, these.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in published_tensors(model):
        if size + tensor.nbytes > SHARD_BYTES and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().contiguous().cpu()
        size += tensor.nbytes
    files = [WEIGHTS]
    if len(shards) > 1:
        files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        _write_index(folder, files, shards)
    for file, tensors in zip(files, shards, strict=True):
        save_file(tensors, folder / file, metadata={"format": "pt"})
    sides = ((L1_HEAD, model.l1_head), (PROPRIO, None if model.proprio_inside else model.proprio))
    for kind, module in sides:
        if module is not None:
            files.append(f"{kind}--0_checkpoint.pt")
            _save_side(module, folder / files[-1])
    _remove_others(folder, {*files, INDEX} if len(shards) > 1 else {*files})
    (folder / CONFIG).write_text(json.dumps(model.sizes.raw, indent=2) + "\n", encoding="utf-8")
    for name in BESIDE:
        if beside is not None and (beside / name).is_file() and beside != folder:
            shutil.copy2(beside / name, folder / name)


def _remove_others(folder: Path, written: set[str]) -> None:
    """Removes the weights and heads in a folder that are not among the names written."""
    for pattern in (WEIGHTS, INDEX, "model-*-of-*.safetensors", f"{L1_HEAD}--*.pt", f"{PROPRIO}--*.pt"):
        for path in folder.glob(pattern):
            if path.name not in written:
                path.unlink()


def _save_side(module: nn.Module, path: Path) -> None:
    torch.save({name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}, path)


def _write_index(folder: Path, files: list[str], shards: list[dict[str, Tensor]]) -> None:
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}, indent=2)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")
