"""OpenVLA and OpenVLA-OFT: published checkpoints loaded, fine-tuned, reinforced and served."""
