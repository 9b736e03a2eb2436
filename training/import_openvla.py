"""Makes a policy's folder of a published OpenVLA or OpenVLA-OFT checkpoint, to reinforce, evaluate or serve."""

from rehearsal.config import command_line
from rehearsal.errors import run_command
from training.policies.openvla.adopt import ImportOpenVLA, import_openvla


def main() -> None:
    config = command_line(ImportOpenVLA, description=__doc__ or "")
    policy = import_openvla(config)
    print(f"{config.out}: {policy.chunk_steps} actions a chunk, cameras {', '.join(policy.cameras)}")


if __name__ == "__main__":
    run_command(main)
