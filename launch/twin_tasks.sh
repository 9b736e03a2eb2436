#!/usr/bin/env bash
# The study of the four tasks on one Piper: demonstrations, SFT and GRPO of each, then results/twin_*.json and the
# README's tables. Interrupted, the same command goes on.
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"

CELL=launch/cells/single_piper.toml
# Few demonstrations, so that the fine-tuned policy leaves something to learn: the harder the task, the more it needs.
declare -A DEMONSTRATIONS=([click_bell]=8 [pick_bottle]=20 [place_empty_cup]=100 [stack_bowls]=120)

for task in click_bell pick_bottle place_empty_cup stack_bowls; do
  python training/collect_demos.py --cell "$CELL" --task "$task" --episodes "${DEMONSTRATIONS[$task]}" \
    --cameras wrist --out "runs/twin_tasks/$task/demonstrations"
  python training/sft.py --config "launch/training/${task}_sft.toml"
  python training/grpo.py --config "launch/training/${task}_grpo.toml"
done
python training/twin_tasks.py --cell "$CELL"
python training/update_readme.py
