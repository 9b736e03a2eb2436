#!/usr/bin/env bash
# The study of four LIBERO tasks: one demonstration, SFT and GRPO of each, then results/libero_training.json, the
# learning curves and the README's tables. Interrupted, the same command goes on.
source "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"

for task in libero_spatial.0 libero_spatial.2 libero_object.0 libero_object.2; do
  suite=${task%.*} number=${task#*.} runs=runs/libero/$task
  python training/collect_demos.py --suite "$suite" --task "$number" --episodes 1 --cameras wrist \
    --out "$runs/demonstration"
  python training/sft.py --config launch/training/libero_one_trajectory_sft.toml --suite "$suite" --task "$number" \
    --demonstrations "$runs/demonstration" --out "$runs/sft"
  python training/grpo.py --config launch/training/libero_grpo.toml --suite "$suite" --policy "$runs/sft" \
    --out "$runs/grpo"
done
python training/libero_training.py
python training/update_readme.py
