#!/usr/bin/env bash
# Reinforcement on two machines with 8 GPUs each: the first learns (FSDP2), the second samples (Ray). Start the first,
# then the second. Policy, cell and code lie at the same paths on both. ADDRESS is the first machine's, as the second
# one reaches it.
#
#   first:  ./launch/cluster/two_nodes.sh head ADDRESS launch/training/openvla_oft_libero_grpo.toml [options]
#   second: ./launch/cluster/two_nodes.sh worker ADDRESS ITS_ADDRESS
#
# Whoever joins the Ray cluster runs code on it, so joining takes a token: the first machine makes it when it has none;
# copy its ~/.ray/auth_token to the second. The learner's own ports are on the loopback address.
# WORKERS and WORKER_GPUS are the second machine's rollout workers and the GPUs of each; PROCESSES the first's GPUs.
# shellcheck source=launch/bootstrap.sh
source "$(dirname "${BASH_SOURCE[0]}")/../bootstrap.sh"

usage="use: $0 head ADDRESS CONFIG.toml [options] | $0 worker ADDRESS ITS_ADDRESS"
[ $# -ge 3 ] || fail "$usage"
role=$1 address=$2; shift 2
PORT=${PORT:-6379} WORKERS=${WORKERS:-8} WORKER_GPUS=${WORKER_GPUS:-1} WORKER_CPUS=${WORKER_CPUS:-8}
PROCESSES=${PROCESSES:-8}
export RAY_AUTH_MODE=token

cluster_cores() { # prints the cores that the Ray cluster offers
  RAY_ADDRESS="$address:$PORT" python -c \
    'import ray; ray.init(log_to_driver=False); print(int(ray.cluster_resources().get("CPU", 0)))' 2>/dev/null || echo 0
}

case $role in
  worker)
    [ -n "${RAY_AUTH_TOKEN:-}" ] || [ -e ~/.ray/auth_token ] ||
      fail "no token to join with: copy ~/.ray/auth_token of $address here, or set RAY_AUTH_TOKEN to what it holds"
    # --block: the machine leaves the cluster when this command ends. Its workers are started by the first machine.
    exec ray start --address "$address:$PORT" --node-ip-address "$1" --disable-usage-stats --block
    ;;
  head)
    config=$1; shift
    # The head offers neither GPUs, which are the learner's, nor cores: all rollout workers go to the second machine.
    ray get-auth-token --generate >/dev/null
    ray start --head --node-ip-address "$address" --port "$PORT" --num-cpus 0 --num-gpus 0 \
      --include-dashboard false --disable-usage-stats --block >/dev/null &
    ray_head=$!
    trap 'kill "$ray_head"' EXIT  # not `ray stop`, which ends every Ray on the machine
    echo "waiting for the second machine: $0 worker $address ITS_ADDRESS"
    until [ "$(cluster_cores)" -ge $((WORKERS * WORKER_CPUS)) ]; do sleep 5; done
    accelerate launch --config_file launch/cluster/fsdp2.yaml --num_processes "$PROCESSES" \
      --main_process_ip 127.0.0.1 --main_process_port "${LEARNER_PORT:-29500}" \
      training/grpo.py --config "$config" --engine.kind fsdp --engine.precision bfloat16 \
      --cluster.address "$address:$PORT" --cluster.workers "$WORKERS" --cluster.gpus-a-worker "$WORKER_GPUS" \
      --cluster.cpus-a-worker "$WORKER_CPUS" "$@"
    ;;
  *) fail "$usage" ;;
esac
