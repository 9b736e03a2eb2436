"""Asks a policy server for action chunks; implements rehearsal.messages.Policy.

A DEALER socket with request ids: unlike REQ it survives a lost answer, and an answer that comes after its time-out
is known by its id and discarded.
"""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import zmq

from deploy import wire
from rehearsal.errors import RehearsalError
from rehearsal.messages import ActionChunk, Observation
from rehearsal.spec import ActionSpec

START_SERVER = "python deploy/serve_policy.py"


class NoServerError(RehearsalError):
    """No policy server answers, or it has stopped answering; the fault is never the policy's."""


class PolicyClient:
    """One connection to a policy server, for one thread."""

    def __init__(
        self, address: str, *, spec: ActionSpec | None = None, timeout_s: float = 10.0, greet_timeout_s: float = 3.0
    ) -> None:
        """Connects and greets; without a `spec` the server only describes itself.

        Raises NoServerError when none answers within `greet_timeout_s`, RehearsalError when it serves another spec.
        """
        wire.check_address(address)
        self.address = address
        self.late_answers = 0
        self._spec = spec
        self._timeout_s = timeout_s
        self._next = 1
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_PART_BYTES)
        try:
            self._socket.connect(address)
            self.description = self._greet(greet_timeout_s)
        except zmq.ZMQError as error:
            self.close()
            raise RehearsalError(f"cannot connect to {address}: {error.strerror}") from None
        except RehearsalError:
            self.close()
            raise

    def infer(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """Sends all observations, then waits for all chunks.

        Raises NoServerError when they do not come in time, RehearsalError when the server cannot serve them.
        """
        requests = [self._send_observation(observation) for observation in observations]
        answers = self._receive(requests, self._timeout_s)
        return [self._chunk(answers[request]) for request in requests]

    def reset(self) -> None:
        """The server keeps nothing between requests."""

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greet(self, timeout_s: float) -> wire.PolicyDescription:
        request = self._request_id()
        self._socket.send_multipart(wire.encode(wire.Hello(request=request, action_spec=self._spec)))
        header = self._receive([request], timeout_s)[request].header
        if isinstance(header, wire.Welcome):
            return header.description
        if isinstance(header, wire.Refusal):
            raise RehearsalError(
                f"the policy server at {self.address} serves bundle {header.description.bundle} for cell "
                f"{header.description.cell}, whose actions differ from this cell's: "
                f"{'; '.join(header.differences)}; serve a bundle made for this cell"
            )
        raise self._unexpected(header)

    def _send_observation(self, observation: Observation) -> int:
        request = self._request_id()
        try:
            frames = wire.encode_observation(request, observation, self.description.cameras)
        except wire.WireError as error:
            raise RehearsalError(str(error)) from None
        self._socket.send_multipart(frames)
        return request

    def _receive(self, requests: Sequence[int], timeout_s: float) -> dict[int, wire.Message]:
        """Waits until every request is answered; discards answers to requests given up before."""
        answers: dict[int, wire.Message] = {}
        deadline_s = time.monotonic() + timeout_s
        while len(answers) < len(requests):
            remaining_ms = round((deadline_s - time.monotonic()) * 1000)
            if remaining_ms <= 0 or not self._socket.poll(remaining_ms):
                raise NoServerError(
                    f"no policy server answers at {self.address} (waited {timeout_s:g} s); start one: {START_SERVER}"
                )
            try:
                message = wire.decode(self._socket.recv_multipart())
            except wire.WireError as error:
                raise RehearsalError(f"what answers at {self.address} is no policy server: {error}") from None
            if message.header.request in requests:
                answers[message.header.request] = message
            else:
                self.late_answers += 1
        return answers

    def _chunk(self, message: wire.Message) -> ActionChunk:
        header = message.header
        if isinstance(header, wire.Chunk):
            try:
                return wire.chunk_of(message, self.description)
            except wire.WireError as error:
                raise RehearsalError(f"the policy server at {self.address} sent a bad chunk: {error}") from None
        if isinstance(header, wire.Fault) and header.greet:
            raise NoServerError(
                f"the policy server at {self.address} was started anew and may serve another policy; connect again"
            )
        raise self._unexpected(header)

    def _unexpected(self, header: wire.Header) -> RehearsalError:
        if isinstance(header, wire.Fault):
            return RehearsalError(f"the policy server at {self.address} refused: {header.reason}")
        return RehearsalError(f"the policy server at {self.address} answered with {type(header).__name__}")

    def _request_id(self) -> int:
        request, self._next = self._next, self._next + 1
        return request
