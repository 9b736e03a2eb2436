"""RDT checkpoints as they are published: `config.json` and `model.safetensors` or `pytorch_model.bin` in a folder."""

import pickle
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rehearsal.errors import RehearsalError
from training.policies.rdt.config import RDTConfig
from training.policies.rdt.model import RDT

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
PICKLED_WEIGHTS = "pytorch_model.bin"


def load_rdt(folder: Path, dtype: torch.dtype | None = None) -> RDT:
    """Reads a checkpoint's folder; dtype: of the weights, by default the one that they are stored in.

    Raises RehearsalError when a file is missing or damaged, or the weights are not those of the config.
    """
    rdt = _empty(_read_config(folder / CONFIG))
    path = folder / WEIGHTS if (folder / WEIGHTS).is_file() else folder / PICKLED_WEIGHTS
    weights = read_weights(path)
    _check_fits({name: tuple(weight.shape) for name, weight in weights.items()}, rdt, path)
    # Assigned, not copied: a model of 1.2 billion weights is in memory once.
    rdt.load_state_dict(weights, assign=True)
    return rdt.to(dtype).eval() if dtype else rdt.eval()


def save_rdt(rdt: RDT, folder: Path) -> None:
    """Writes the folder that `load_rdt` reads; names, shapes, values and types stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(rdt.config), indent=2) + b"\n")
    write_weights({name: weight for name, weight in rdt.state_dict().items()}, folder / WEIGHTS)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads a safetensors file, or a pickled one that holds nothing but tensors; raises RehearsalError."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RehearsalError(
            f"no weights in {path.parent}: it must hold {WEIGHTS} or {PICKLED_WEIGHTS}"
        ) from None
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise RehearsalError(f"{path} cannot be read: {str(error).splitlines()[0]}; copy it again") from None


def write_weights(weights: dict[str, Tensor], path: Path) -> None:
    save_file({name: weight.detach().contiguous() for name, weight in weights.items()}, path)


def _empty(config: RDTConfig) -> RDT:
    with torch.device("meta"):
        return RDT(config)


def _read_config(path: Path) -> RDTConfig:
    try:
        return msgspec.json.decode(path.read_bytes(), type=RDTConfig)
    except FileNotFoundError:
        raise RehearsalError(f"no RDT checkpoint in {path.parent}: {CONFIG} is missing") from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise RehearsalError(f"{path} is not an RDT config: {error}") from None


def _check_fits(found: dict[str, tuple[int, ...]], rdt: RDT, path: Path) -> None:
    """Raises RehearsalError that names the first weight which is missing, of another shape, or not known."""
    wanted = {name: tuple(weight.shape) for name, weight in rdt.state_dict().items()}
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            is_, should = (f"of shape {shapes[name]}" if name in shapes else "absent" for shapes in (found, wanted))
            raise RehearsalError(f"{path} is not a model of its {CONFIG}: {name} is {is_} and should be {should}")
