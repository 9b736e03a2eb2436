"""Serves a policy bundle: `python deploy/serve_policy.py` serves the bundle exported last."""

import logging
import signal
import threading
from pathlib import Path

import msgspec

from deploy.policy_server import PolicyServer
from deploy.served_policy import describe, open_policy
from deploy.wire import DEFAULT_ADDRESS
from rehearsal.bundle import latest_bundle
from rehearsal.config import command_line
from rehearsal.errors import run_command


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to serve, and where."""

    policy: Path | None = None
    """Folder of the bundle; without it the bundle exported last below runs/bundles."""
    address: str = DEFAULT_ADDRESS
    """Where to listen. Only this machine can connect by default; there is no password, so open it to none but a
    network of your own."""
    threads: int = 0
    """Threads of the model; 0 leaves their number to its runtime."""
    max_batch: int = 64
    """At most this many observations in one run of the model."""


def main() -> None:
    config = command_line(ServeConfig, description=__doc__ or "")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    policy = open_policy(config.policy or latest_bundle(Path("runs/bundles")), threads=config.threads)
    served = describe(policy.manifest)
    server = PolicyServer(policy, served, config.address, max_batch=config.max_batch)
    stop = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stop.set())
    ready = f"READY {server.address} bundle={served.bundle} cell={served.cell} task={served.task} on={policy.provider}"
    print(ready, flush=True)
    try:
        server.serve(stop)
    finally:
        server.close()


if __name__ == "__main__":
    run_command(main)
