#!/usr/bin/env bash
# Reinforcement on one machine with 8 GPUs: FSDP2 over all of them, each process simulating its share of the rollouts.
#
#   ./launch/cluster/one_node_8_gpus.sh launch/training/openvla_oft_libero_grpo.toml [options of training/grpo.py]
#
# PROCESSES=2 takes two GPUs (or, where there is none, two processes on the CPU); RECIPE=ppo is PPO. Interrupted, the
# same command goes on from the last checkpoint.
# shellcheck source=launch/bootstrap.sh
source "$(dirname "${BASH_SOURCE[0]}")/../bootstrap.sh"

[ $# -ge 1 ] || fail "give the run's config: $0 launch/training/openvla_oft_libero_grpo.toml"
config=$1; shift
PROCESSES=${PROCESSES:-8} RECIPE=${RECIPE:-grpo}

# What it takes of each GPU, and whether it fits: a minute now spares an hour of loading.
python "training/$RECIPE.py" --config "$config" --engine.kind fsdp --engine.precision bfloat16 "$@" \
  --plan --hardware.devices "$PROCESSES" --hardware.device-gib "${DEVICE_GIB:-80}"

# Only this machine's processes meet: the loopback address is enough. The port may be any that is free.
exec accelerate launch --config_file launch/cluster/fsdp2.yaml --num_processes "$PROCESSES" \
  --main_process_ip 127.0.0.1 --main_process_port "${PORT:-29500}" \
  "training/$RECIPE.py" --config "$config" --engine.kind fsdp --engine.precision bfloat16 "$@"
