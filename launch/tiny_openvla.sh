#!/usr/bin/env bash
# The path of OpenVLA-OFT on the twin with a tiny model of random weights: SFT, GRPO, export, policy server, ten
# trials. It shows that everything fits together; what such a model reaches is no claim. With a published checkpoint
# in place of the tiny one the commands are the same (docs/openvla.md).
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"

RUN=runs/tiny_openvla BUNDLE=runs/bundles/tiny_openvla
CELL=launch/cells/single_piper.toml TASK=click_bell

[ -e "$RUN/checkpoint/config.json" ] || python training/tiny_openvla.py --out "$RUN/checkpoint"
[ -e "$RUN/demonstrations/meta/info.json" ] || python training/collect_demos.py --cell "$CELL" --task "$TASK" \
  --episodes 100 --cameras wrist --out "$RUN/demonstrations"
python training/sft.py --config launch/training/tiny_openvla_sft.toml
python training/grpo.py --config launch/training/tiny_openvla_grpo.toml
python training/export_policy.py --policy "$RUN/grpo" --out "$BUNDLE"

log="$RUN/server.log"
python deploy/serve_policy.py --policy "$BUNDLE" --address 'tcp://127.0.0.1:*' >"$log" 2>&1 &
server=$!
trap 'kill "$server"' EXIT
until grep -q '^READY' "$log"; do
  kill -0 "$server" || { cat "$log" >&2; fail "the policy server did not start"; }
  sleep 0.2
done
python deploy/run_trials.py --n 10 --cell "$CELL" --task "$TASK" --server "$(awk '$1 == "READY" {print $2}' "$log")" \
  --out "$RUN/trials"
