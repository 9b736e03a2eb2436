#!/usr/bin/env bash
# The comparison of recipes on two tasks: demonstrations, the policy that all begin with, 66 runs of reinforcement, then
# results/recipes.json, its curves and the README's table. An hour on two cores; interrupted, the same command goes on.
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
export OMP_NUM_THREADS=1

CELL=launch/cells/single_piper.toml
declare -A DEMONSTRATIONS=([click_bell]=12 [pick_bottle]=30)

study() { # study TASK: everything of one task, on one core
  python training/collect_demos.py --cell "$CELL" --task "$1" --episodes "${DEMONSTRATIONS[$1]}" --cameras wrist \
    --out "runs/recipes/$1/demonstrations"
  python training/sft.py --config "launch/training/recipes/$1_sft.toml"
  python training/recipes.py --tasks "$1" --results "runs/recipes/$1/results"
}
study click_bell & first=$!
study pick_bottle & second=$!
wait "$first"
wait "$second"
python training/recipes.py --no-train
python training/update_readme.py
