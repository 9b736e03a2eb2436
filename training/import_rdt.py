"""Makes a policy's folder of a published RDT checkpoint: it can then be evaluated, exported and served."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.policies.rdt.import_checkpoint import ImportRDT, import_rdt


def main() -> None:
    config = command_line(ImportRDT, description=__doc__ or "")
    policy = import_rdt(config)
    print(f"{config.out}: {policy.chunk_steps} actions a chunk, cameras {', '.join(policy.cameras)}")


if __name__ == "__main__":
    run_command(main)
