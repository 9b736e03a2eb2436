"""Serves a policy to any number of clients over ZeroMQ.

One thread: it takes whatever waits in the queue, runs the policy once on all of it and answers. Answering several
cells in one batch costs little more than answering one; while the model runs, ZeroMQ's own thread goes on
receiving. A message that cannot be served is answered with the reason and never ends the server.
"""

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass

import zmq

from deploy import wire
from rehearsal.errors import RehearsalError
from rehearsal.messages import Observation, Policy

# How often the loop looks whether it shall stop [ms], and how long answers may still leave after that [ms].
POLL_MS = 100
LINGER_MS = 1000
# Greeted clients that are remembered; the oldest beyond it greets again.
MAX_CLIENTS = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Request:
    identity: bytes
    request: int
    observation: Observation


class PolicyServer:
    """Binds on construction; `serve` runs until told to stop."""

    def __init__(
        self,
        policy: Policy,
        description: wire.PolicyDescription,
        address: str = wire.DEFAULT_ADDRESS,
        *,
        max_batch: int = 64,
    ) -> None:
        """Raises RehearsalError when the address is taken or is no address."""
        wire.check_address(address)
        self._policy = policy
        self._description = description
        self._max_batch = max_batch
        self._greeted: OrderedDict[bytes, None] = OrderedDict()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_PART_BYTES)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            if error.errno == zmq.EADDRINUSE:
                text = f"{address} is taken: another server runs there; stop it, or give --address tcp://127.0.0.1:PORT"
                raise RehearsalError(text) from None
            raise RehearsalError(f"cannot listen at {address}: {error.strerror}") from None

    @property
    def address(self) -> str:
        """The address bound, with the port that the system chose when none was asked for."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def serve(self, stop: threading.Event) -> None:
        """Serves until `stop` is set, and then answers what already waits."""
        while not stop.is_set():
            if self._socket.poll(POLL_MS):
                self._serve_waiting()
        self._serve_waiting()

    def close(self) -> None:
        """Frees the address; answers already given still leave."""
        self._socket.close()
        self._context.term()

    def _serve_waiting(self) -> None:
        requests: list[_Request] = []
        while len(requests) < self._max_batch:
            try:
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if (request := self._take(identity, frames)) is not None:
                requests.append(request)
        if requests:
            self._answer(requests)

    def _take(self, identity: bytes, frames: list[bytes]) -> _Request | None:
        """Returns an observation to infer from; answers everything else at once."""
        try:
            message = wire.decode(frames)
            header = message.header
            if isinstance(header, wire.Hello):
                self._send(identity, wire.encode(self._greet(identity, header)))
                return None
            if not isinstance(header, wire.Infer):
                raise wire.WireError(f"a server takes hello and infer, got {type(header).__name__}", header.request)
            if identity not in self._greeted:
                fault = wire.Fault(request=header.request, reason="say hello first", greet=True)
                self._send(identity, wire.encode(fault))
                return None
            observation = wire.observation_of(message, self._description)
            return _Request(identity=identity, request=header.request, observation=observation)
        except wire.WireError as error:
            _log.warning("refused a message: %s", error)
            self._send(identity, wire.encode(wire.Fault(request=error.request, reason=str(error))))
            return None

    def _greet(self, identity: bytes, hello: wire.Hello) -> wire.Welcome | wire.Refusal:
        if hello.action_spec is not None:
            if differences := hello.action_spec.differences(self._description.action_spec):
                self._greeted.pop(identity, None)
                return wire.Refusal(
                    request=hello.request, description=self._description, differences=tuple(differences)
                )
            self._greeted[identity] = None
            while len(self._greeted) > MAX_CLIENTS:
                self._greeted.popitem(last=False)
        return wire.Welcome(request=hello.request, description=self._description)

    def _answer(self, requests: list[_Request]) -> None:
        try:
            chunks = self._policy.infer([request.observation for request in requests])
        except RehearsalError as error:
            _log.error("inference failed: %s", error)
            for request in requests:
                self._send(request.identity, wire.encode(wire.Fault(request=request.request, reason=str(error))))
            return
        for request, chunk in zip(requests, chunks, strict=True):
            self._send(request.identity, wire.encode_chunk(request.request, chunk))

    def _send(self, identity: bytes, frames: list[bytes]) -> None:
        # A ROUTER drops what is for a client that has gone, which is right: nobody waits for it.
        self._socket.send_multipart([identity, *frames])
