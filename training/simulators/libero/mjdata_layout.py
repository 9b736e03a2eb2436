"""Where MuJoCo keeps what native code must read and Python's arrays cannot follow: the list of contacts.

Everything else of an mjData lies at fixed addresses, which numpy arrays share. The contacts move with the arena, so
their pointer is read from the struct, at the offset that MuJoCo's own description of its structs
(`mujoco.introspect`) gives; `check_layout` compares it with a live simulation.
"""

import ctypes
import re
from functools import cache
from typing import Any, NamedTuple

import mujoco
from mujoco.introspect import ast_nodes, structs

from rehearsal.errors import RehearsalError

_BASE: dict[str, Any] = {
    "int": ctypes.c_int,
    "mjtNum": ctypes.c_double,
    "double": ctypes.c_double,
    "float": ctypes.c_float,
    "mjtByte": ctypes.c_ubyte,
    "mjtBool": ctypes.c_ubyte,
    "size_t": ctypes.c_size_t,
    "uintptr_t": ctypes.c_size_t,
    "uint64_t": ctypes.c_uint64,
    "mjtSize": ctypes.c_int64,
    "char": ctypes.c_char,
}


class ContactLayout(NamedTuple):
    """Byte offsets: of the count and the pointer in mjData, of the two geom ids in a contact; bytes a contact."""

    number: int
    pointer: int
    geoms: int
    size: int


@cache
def contact_layout() -> ContactLayout:
    """Returns the layout of the MuJoCo that is installed."""
    data, contact = _struct("mjData"), _struct("mjContact")
    return ContactLayout(
        number=data.ncon.offset,
        pointer=data.contact.offset,
        geoms=contact.geom.offset,
        size=ctypes.sizeof(contact),
    )


def check_layout(data: mujoco.MjData) -> None:
    """Raises RehearsalError when the layout is not that of `data`, which must hold at least one contact."""
    layout = contact_layout()
    count = ctypes.c_int.from_address(data._address + layout.number).value
    pointer = ctypes.c_int64.from_address(data._address + layout.pointer).value
    geoms = data.contact.geom
    agrees = count == data.ncon > 0 and pointer + layout.geoms == geoms.__array_interface__["data"][0]
    if not (agrees and geoms.strides[0] == layout.size):
        raise RehearsalError(
            f"MuJoCo {mujoco.__version__} lays out its contacts otherwise than it says; install mujoco 3.17"
        )


@cache
def _struct(name: str) -> Any:
    """Returns a ctypes.Structure of one of MuJoCo's structs."""
    fields = [(field.name, _ctype(field.type)) for field in structs.STRUCTS[name].fields]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def _ctype(kind: Any) -> Any:
    if isinstance(kind, ast_nodes.PointerType):
        return ctypes.c_void_p
    if isinstance(kind, ast_nodes.ArrayType):
        inner = _ctype(kind.inner_type)
        for extent in reversed(kind.extents):
            inner = inner * extent
        return inner
    name = re.sub(r"\b(const|struct)\b", "", str(kind)).strip().removesuffix("_")
    if name in _BASE:
        return _BASE[name]
    return _struct(name) if name in structs.STRUCTS else ctypes.c_int  # what remains are enumerations
