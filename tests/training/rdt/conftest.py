"""Numbers of the public reference implementation at a tiny configuration.

Computed by thu-ml/RoboticsDiffusionTransformer at deb71d8 with timm 1.0.3, torch 2.13.0 and diffusers 0.42.1: all
weights random (the position embeddings and the final layer too), exact in bfloat16, in which they are stored; run in
float32. arrays.npz: `start_*` and `plain_*`, the position embeddings as initialised with and without the config's
grids; inputs; `predicted_*`, the denoiser's output with masks of language, of language and image, and of none at
timestep 500; `norm_*`, one normalisation; `sample_*`, five solver steps from `sample_noise` and the masked result;
`loss*`, the training loss and what was drawn for it; gradient_norms.json: the norm of each parameter's gradient.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel, T5Config, T5EncoderModel

from training.policies.rdt.checkpoint import load_rdt, save_rdt
from training.policies.rdt.config import ModelConfig, RDTConfig, TransformerConfig
from training.policies.rdt.model import RDT
from training.policies.rdt.sampling import Conditions

REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture
def reference_folder() -> Path:
    return REFERENCE


@pytest.fixture(scope="session")
def reference() -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(REFERENCE / "arrays.npz").items()}


@pytest.fixture
def reference_rdt() -> RDT:
    return load_rdt(REFERENCE, torch.float32)


@pytest.fixture
def reference_conditions(reference: dict[str, Tensor]) -> Conditions:
    names = ("language", "language_mask", "image", "state", "mask", "frequency_hz")
    return Conditions(**{name: reference[name] for name in names})


@pytest.fixture
def close() -> Callable[[Tensor, Tensor], None]:
    """Says that two tensors agree to 1e-5."""
    return lambda found, wanted: torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rdt/, t5/ and siglip/ of random weights, as their publishers lay them out, and language files.

    SigLIP: 28 px in patches of 14, so 4 tokens of 16 values a picture. T5: tokens of 20 values.
    """
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**vision, "vocab_size": 32, "max_position_embeddings": 8}
    siglip = SiglipConfig(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    SiglipModel(siglip).save_pretrained(root / "siglip")
    processor = {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True, "resample": 3,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255,
        "image_processor_type": "SiglipImageProcessor", "size": {"height": 28, "width": 28},
    }  # fmt: skip
    (root / "siglip/preprocessor_config.json").write_text(json.dumps(processor))
    t5 = T5Config(vocab_size=8, d_model=20, d_kv=8, d_ff=24, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu")
    T5EncoderModel(t5).save_pretrained(root / "t5")
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2, "pick": 3, "the": 4, "bottle": 5}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(root / "t5")
    save_file({"Pick the bottle.": torch.randn(4, 20), "push": torch.randn(2, 20)}, root / "language.safetensors")
    upstream = {"name": "pick", "instruction": "Pick the bottle.", "embeddings": torch.randn(1, 4, 20)}
    torch.save(upstream, root / "language.pt")
    save_rdt(big_layout_rdt(), root / "rdt")
    return root


def big_layout_rdt() -> RDT:
    """Returns a tiny model of the published layout (128 slots, two times, three cameras), all weights random."""
    config = RDTConfig(
        pred_horizon=6, lang_token_dim=20, img_token_dim=16, max_lang_cond_len=5, img_cond_len=24,
        img_pos_embed_config=(("image", (2, 3, -4)),), lang_pos_embed_config=(("lang", -5),),
        config=ModelConfig(rdt=TransformerConfig(hidden_size=32, depth=2, num_heads=2)),
    )  # fmt: skip
    rdt = RDT.new(config, seed=0)
    torch.nn.init.normal_(rdt.model.final_layer.ffn_final.fc2.weight, std=0.3)
    return rdt
