#!/usr/bin/env bash
# The main job once, on a machine without a GPU: demonstrations, supervised fine-tuning, reinforcement, export, and
# fifty held-out trials each through the policy server. Interrupted, the same command goes on; --fresh starts over.
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"

SECONDS=0  # the clock runs without installation
RUN=runs/twin_tasks/click_bell BUNDLES=runs/bundles
CELL=launch/cells/single_piper.toml TASK=click_bell DEMONSTRATIONS=8 TRIALS=50

case "${1:-}" in
  "") ;;
  --fresh) rm -rf "$RUN" "$BUNDLES"/quickstart_sft "$BUNDLES"/quickstart_grpo ;;
  *) fail "unknown option $1; valid: --fresh" ;;
esac
mkdir -p "$RUN"

clock() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }

step() { # step NAME COMMAND...: runs the command unless it has finished before
  local name="$1"; shift
  if [ -e "$RUN/$name.done" ]; then echo "== $name: done before"; return; fi
  echo "== $name (at $(clock)): $*"
  "$@"
  touch "$RUN/$name.done"
}

try_bundle() { # try_bundle NAME: serves the bundle in a process of its own and runs the trials through it
  local log="$RUN/server_$1.log" address=""
  python deploy/serve_policy.py --policy "$BUNDLES/quickstart_$1" --address 'tcp://127.0.0.1:*' >"$log" 2>&1 &
  server=$!
  while [ -z "$address" ]; do
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; fail "the policy server did not start"; }
    sleep 0.2
    address="$(awk '$1 == "READY" {print $2}' "$log")"
  done
  python deploy/run_trials.py --n "$TRIALS" --cell "$CELL" --task "$TASK" --server "$address" --out "$RUN/trials_$1"
  kill "$server" && wait "$server" || true
  server=""
}
server=""
trap '[ -z "$server" ] || kill "$server"' EXIT

step demonstrations python training/collect_demos.py --cell "$CELL" --task "$TASK" \
  --episodes "$DEMONSTRATIONS" --cameras wrist --out "$RUN/demonstrations"
step sft python training/sft.py --config launch/training/click_bell_sft.toml
step grpo python training/grpo.py --config launch/training/click_bell_grpo.toml
step export_sft python training/export_policy.py --policy "$RUN/sft" --out "$BUNDLES/quickstart_sft"
step export_grpo python training/export_policy.py --policy "$RUN/grpo" --out "$BUNDLES/quickstart_grpo"
step trials_sft try_bundle sft
step trials_grpo try_bundle grpo

echo "== finished (at $(clock))"
echo "seeds: training $(grep -h '^seed' launch/training/click_bell_sft.toml launch/training/click_bell_grpo.toml | paste -sd' ' -)" \
  "(SFT, GRPO); held-out scenarios 2000000 to $((2000000 + TRIALS - 1))"
python launch/quickstart_table.py "$RUN"
