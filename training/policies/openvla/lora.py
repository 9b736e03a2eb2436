"""Low-rank adapters on every linear layer (Hu et al. 2022), as OpenVLA-OFT is fine-tuned, by peft.

The adapters are merged before a checkpoint is saved, so that what is saved is a whole model like any other.
"""

import copy

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from training.policies.model_training import LoraOptions
from training.policies.openvla.model import OpenVLA


def add_lora(model: OpenVLA, options: LoraOptions) -> OpenVLA:
    """Puts adapters on every linear layer but the head of words, and freezes all that is no adapter.

    The state's projector and the L1 head stay trainable: they have no pretrained knowledge to keep.
    """
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(("vision.", "projector.", "language_model.model."))
    ]
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.scale_alpha,  # type: ignore[arg-type]  # peft divides it: a fraction is as good
        lora_dropout=options.dropout,
        target_modules=names,
        init_lora_weights="gaussian",
    )
    inject_adapter_in_model(config, model)
    for name, weights in model.named_parameters():
        weights.requires_grad_("lora_" in name or name.startswith(("proprio.", "l1_head.")))
    return model


def merged(model: OpenVLA) -> OpenVLA:
    """Returns a copy without adapters whose weights hold what they learned; `model` itself when it has none."""
    if not any(isinstance(module, LoraLayer) for module in model.modules()):
        return model
    whole = copy.deepcopy(model)
    for name, module in list(whole.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(whole.get_submodule(parent), own, module.get_base_layer())
    return whole
