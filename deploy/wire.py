"""The messages between a policy client and a policy server.

A message is a ZeroMQ multipart message: one msgpack header, then one raw part an array, in the order of the
header's `arrays`. Nothing is ever unpickled: the header is decoded into closed types, an array's dtype is one of
two, and a part whose length is not shape x item size is refused before numpy sees it.

Every header begins with the protocol's number and the request's id. Stamps are the client's own and are echoed;
two hosts' clocks are never differenced.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from rehearsal.errors import RehearsalError
from rehearsal.messages import ActionChunk, Observation
from rehearsal.spec import ActionSpec

PROTOCOL = 1
# Loopback: only this machine can connect unless somebody asks for more.
DEFAULT_ADDRESS = "tcp://127.0.0.1:5557"
# Caps: a header is a spec and a few names; a part is at most a 4096 x 4096 RGB picture (48 MiB). They bound what a
# stray or hostile sender can make the server hold.
MAX_HEADER_BYTES = 64 * 1024
MAX_PART_BYTES = 48 * 1024 * 1024
MAX_PARTS = 16
MAX_TEXT = 1000

DType = Literal["uint8", "float32"]
DTYPES: dict[DType, np.dtype] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
STATE, ACTIONS, IMAGE = "state", "actions", "image/"

Size = Annotated[int, Meta(ge=1, le=1_000_000)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
RequestId = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class WireError(Exception):
    """A message that breaks the format. `request` is its id as far as it could be read, else 0."""

    def __init__(self, text: str, request: int = 0) -> None:
        super().__init__(text)
        self.request = request


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ArrayPart(_Strict, frozen=True, kw_only=True):
    """What one raw part holds, in C order, little-endian."""

    name: Annotated[str, Meta(max_length=100)]
    dtype: DType
    shape: Annotated[tuple[Size, ...], Meta(min_length=1, max_length=4)]


class _Header(_Strict, frozen=True, kw_only=True, tag_field="kind"):
    protocol: int = PROTOCOL
    request: RequestId
    arrays: Annotated[tuple[ArrayPart, ...], Meta(max_length=MAX_PARTS)] = ()


class PolicyDescription(_Strict, frozen=True, kw_only=True):
    """What a server serves. `model_checksum` is the SHA-256 of the bundle's model file."""

    action_spec: ActionSpec
    cell: Text
    task: Text
    cameras: Annotated[tuple[Text, ...], Meta(max_length=MAX_PARTS - 1)]
    side_px: Size
    chunk_steps: Size
    bundle: Text
    model_checksum: Text


class Hello(_Header, tag="hello", frozen=True, kw_only=True):
    """Client to server: the client's spec. Without one the server only describes itself and admits nobody."""

    action_spec: ActionSpec | None = None


class Welcome(_Header, tag="welcome", frozen=True, kw_only=True):
    """The answer to a hello whose spec is the served one."""

    description: PolicyDescription


class Refusal(_Header, tag="refusal", frozen=True, kw_only=True):
    """The answer to a hello with another spec: one phrase a field that differs, client's against server's."""

    description: PolicyDescription
    differences: Annotated[tuple[str, ...], Meta(max_length=20)]


class Infer(_Header, tag="infer", frozen=True, kw_only=True):
    """One observation. Arrays: `state` float32 (S,), `image/<camera>` uint8 (H, W, 3)."""

    instruction: Text
    captured_at: float


class Chunk(_Header, tag="chunk", frozen=True, kw_only=True):
    """The answer to an infer. Arrays: `actions` float32 (T, A). `captured_at` is the observation's, echoed."""

    captured_at: float
    sequence: RequestId
    inference_s: Annotated[float, Meta(ge=0)]


class Fault(_Header, tag="fault", frozen=True, kw_only=True):
    """The answer to a message that could not be served. `greet`: the server does not know this client (any more)."""

    reason: str
    greet: bool = False


def check_address(address: str) -> None:
    """Raises RehearsalError for what is no address; ZeroMQ itself takes a port beyond 65535 modulo 65536."""
    found = re.fullmatch(r"tcp://\S+:(\*|\d{1,5})", address)
    if not found or (found[1] != "*" and int(found[1]) > 65535):
        raise RehearsalError(f"{address!r} is no address; an address is like {DEFAULT_ADDRESS}")


Header = Hello | Welcome | Refusal | Infer | Chunk | Fault
_DECODER = msgspec.msgpack.Decoder(Header)
_ENCODER = msgspec.msgpack.Encoder()


class _Envelope(msgspec.Struct):
    """What any version of the protocol has, so that another version is told apart from a broken message."""

    protocol: int
    request: RequestId = 0


@dataclass(frozen=True, kw_only=True)
class Message:
    """A decoded message; `arrays` are read-only views of the received parts, by name."""

    header: Header
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def encode(header: Header, arrays: Mapping[str, np.ndarray] | None = None) -> list[bytes]:
    """Returns the parts to send; `header.arrays` is filled in. Raises WireError for what may not be sent."""
    parts, listed = [], []
    for name, array in (arrays or {}).items():
        dtype = next((known for known in DTYPES if known == array.dtype.name), None)
        if dtype is None:
            raise WireError(f"array {name!r} has dtype {array.dtype}; valid: {', '.join(DTYPES)}", header.request)
        listed.append(ArrayPart(name=name, dtype=dtype, shape=array.shape))
        parts.append(np.asarray(array, dtype=DTYPES[dtype]).tobytes())
    return [_ENCODER.encode(msgspec.structs.replace(header, arrays=tuple(listed))), *parts]


def decode(frames: Sequence[bytes]) -> Message:
    """Decodes the parts of one message; raises WireError that says what is wrong with it."""
    if not frames:
        raise WireError("empty message")
    if len(frames[0]) > MAX_HEADER_BYTES:
        raise WireError(f"header of {len(frames[0])} bytes; at most {MAX_HEADER_BYTES}")
    try:
        envelope = msgspec.msgpack.decode(frames[0], type=_Envelope)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message of this protocol: {error}") from None
    if envelope.protocol != PROTOCOL:
        raise WireError(
            f"protocol {envelope.protocol}, this side speaks {PROTOCOL}; use the same version at both ends",
            envelope.request,
        )
    try:
        header = _DECODER.decode(frames[0])
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"bad header: {error}", envelope.request) from None
    return Message(header=header, arrays=_arrays(header, frames[1:]))


def _arrays(header: Header, parts: Sequence[bytes]) -> dict[str, np.ndarray]:
    if len(parts) != len(header.arrays):
        raise WireError(f"{len(parts)} parts for {len(header.arrays)} arrays", header.request)
    arrays: dict[str, np.ndarray] = {}
    for listed, part in zip(header.arrays, parts, strict=True):
        dtype = DTYPES[listed.dtype]
        # math.prod of Python integers cannot overflow, so no shape can pass as a small one.
        expected = math.prod(listed.shape) * dtype.itemsize
        if expected > MAX_PART_BYTES:
            raise WireError(f"array {listed.name!r} of {expected} bytes; at most {MAX_PART_BYTES}", header.request)
        if len(part) != expected:
            text = f"array {listed.name!r} {listed.shape} {listed.dtype} needs {expected} bytes, got {len(part)}"
            raise WireError(text, header.request)
        if listed.name in arrays:
            raise WireError(f"array {listed.name!r} comes twice", header.request)
        arrays[listed.name] = np.frombuffer(part, dtype=dtype).reshape(listed.shape)
    return arrays


def encode_observation(request: int, observation: Observation, cameras: Sequence[str]) -> list[bytes]:
    """Returns an infer message with the pictures of `cameras`; raises WireError when one is not in it."""
    arrays = {STATE: np.asarray(observation.state, dtype=np.float32)}
    for camera in cameras:
        if camera not in observation.images:
            have = ", ".join(observation.images) or "none"
            raise WireError(f"the policy looks through camera {camera!r}; the cell has: {have}", request)
        arrays[IMAGE + camera] = observation.images[camera]
    header = Infer(request=request, instruction=observation.instruction, captured_at=observation.captured_at)
    return encode(header, arrays)


def observation_of(message: Message, description: PolicyDescription) -> Observation:
    """Returns the observation in an infer message; raises WireError when the policy could not use it."""
    header, spec = message.header, description.action_spec
    assert isinstance(header, Infer)
    state = message.arrays.get(STATE)
    if state is None or state.dtype != DTYPES["float32"] or state.shape != (spec.dim,):
        raise WireError(f"state must be float32 ({spec.dim},)", header.request)
    if not np.isfinite(state).all():
        raise WireError(f"state holds values that are not finite: {state.tolist()}", header.request)
    images = {}
    for camera in description.cameras:
        image = message.arrays.get(IMAGE + camera)
        if image is None or image.dtype != DTYPES["uint8"] or image.ndim != 3 or image.shape[2] != 3:
            raise WireError(f"the picture of camera {camera!r} must be uint8 (H, W, 3)", header.request)
        images[camera] = image
    return Observation(
        images=images, state=state, instruction=header.instruction, captured_at=header.captured_at
    )


def encode_chunk(request: int, chunk: ActionChunk) -> list[bytes]:
    """Returns the chunk message that answers `request`."""
    header = Chunk(
        request=request,
        captured_at=chunk.captured_at,
        sequence=chunk.sequence,
        inference_s=chunk.inference_s,
    )
    return encode(header, {ACTIONS: np.asarray(chunk.actions, dtype=np.float32)})


def chunk_of(message: Message, description: PolicyDescription) -> ActionChunk:
    """Returns the actions in a chunk message; raises WireError when they are not what was announced."""
    header = message.header
    assert isinstance(header, Chunk)
    shape = (description.chunk_steps, description.action_spec.dim)
    actions = message.arrays.get(ACTIONS)
    if actions is None or actions.dtype != DTYPES["float32"] or actions.shape != shape:
        raise WireError(f"actions must be float32 {shape}", header.request)
    if not np.isfinite(actions).all():
        raise WireError("actions hold values that are not finite", header.request)
    return ActionChunk(
        actions=actions,
        captured_at=header.captured_at,
        sequence=header.sequence,
        inference_s=header.inference_s,
    )
