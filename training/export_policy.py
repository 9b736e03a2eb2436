"""Exports a policy as a bundle for deploy/serve_policy.py; a compact one is served without torch."""

from pathlib import Path

import msgspec

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.export.bundle_export import export_bundle
from training.policies.policy import Decoding, load_policy


class ExportConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to export, and where to."""

    policy: Path = Path("runs/grpo")
    """A policy's folder or a run's."""
    out: Path = Path("runs/bundles/policy")
    """The bundle's folder; it becomes the one that deploy/serve_policy.py serves by default."""
    decoding: Decoding = "argmax"
    """What the server plays: the most likely bin, or the mean of the distribution."""


def main() -> None:
    config = command_line(ExportConfig, description=__doc__ or "")
    manifest = export_bundle(load_policy(config.policy), config.out, decoding=config.decoding)
    parity = manifest.training.get("parity")
    agrees = f", logits agree with torch to {parity['logits']:.1e}" if parity else ""
    print(f"{config.out}: runs on {manifest.runtime}{agrees}")


if __name__ == "__main__":
    run_command(main)
