"""What weight files say of themselves, without a weight in memory: names, shapes and types of their tensors."""

import json
import math
import pickle
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import onnx
import torch
from google.protobuf.message import DecodeError
from safetensors import SafetensorError, safe_open

from rehearsal.errors import RehearsalError

INDEX = "model.safetensors.index.json"
# In this order: the model, what adapts one, RDT's pickled file, a bundle's exported model.
SINGLE_FILES = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "policy.onnx")
_SHORT = {"float": "F32", "float32": "F32", "bfloat16": "BF16", "float16": "F16", "int64": "I64"}

Header = list[tuple[str, tuple[int, ...], str]]
"""Name, shape and type of each tensor of a file."""


class Tensors(msgspec.Struct, frozen=True, kw_only=True):
    """shapes: by name. types: number of values by type, as safetensors writes it (F32, BF16, ...). files, missing:
    names of the weight files that are there, and of those that the index names and the folder lacks.
    """

    shapes: dict[str, tuple[int, ...]]
    types: dict[str, int]
    files: tuple[str, ...]
    missing: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Values in the files that are there."""
        return sum(self.types.values())


def read_headers(folder: Path) -> Tensors:
    """Reads the headers of a folder's weight files, none when there are none.

    Raises RehearsalError for a damaged file and for an index that is none.
    """
    names = _files(folder)
    there = [name for name in names if (folder / name).is_file()]
    shapes: dict[str, tuple[int, ...]] = {}
    types: Counter[str] = Counter()
    for name in there:
        for tensor, shape, kind in read_header(folder / name):
            shapes[tensor] = shape
            types[kind] += math.prod(shape)
    missing = tuple(name for name in names if name not in there)
    return Tensors(shapes=shapes, types=dict(types), files=tuple(there), missing=missing)


def read_header(path: Path) -> Header:
    """Reads the header of a safetensors or ONNX file, or of a pickled one that holds only tensors.

    Raises RehearsalError for a damaged file.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
                return [(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()]
        if path.suffix == ".onnx":
            found = onnx.load(path, load_external_data=False).graph.initializer
            return [
                (part.name, tuple(part.dims), _short(onnx.TensorProto.DataType.Name(part.data_type)))
                for part in found
            ]
        state = torch.load(path, map_location="meta", weights_only=True)
    except (SafetensorError, DecodeError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RehearsalError(f"{path} cannot be read: {reason}; copy it again") from None
    return [(name, tuple(tensor.shape), _short(str(tensor.dtype))) for name, tensor in state.items()]


def _files(folder: Path) -> list[str]:
    """Returns the names of the weight files that a folder has or should have."""
    index = folder / INDEX
    if not index.is_file():
        return [name for name in SINGLE_FILES if (folder / name).is_file()][:1]
    try:
        places: Iterable[str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted(set(places))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError):
        raise RehearsalError(f"{index} is no index of shards; copy it again") from None


def _short(kind: str) -> str:
    name = kind.removeprefix("torch.").lower()
    return _SHORT.get(name, name.upper())
