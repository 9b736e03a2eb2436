"""The distribution of action tokens that a policy's logits (..., bins) stand for, shared by every policy.

Sampling and scoring use the same distribution: softmax over the action bins only, logits divided by the rollout
temperature (SimpleVLA-RL, Li et al. 2025). All functions take the logits of the bins alone; a policy whose
vocabulary is larger hands over that slice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.policies.policy import Decoding


def log_probs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Returns the log-probability float32 (...) of each token (...) under logits (..., bins)."""
    scaled = F.log_softmax(logits.float() / temperature, dim=-1)
    return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def log_probs_and_entropy(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities (...) of tokens and the entropy [nat] (...) of each distribution."""
    scaled = F.log_softmax(logits.float() / temperature, dim=-1)
    entropy = -(scaled.exp() * scaled).sum(-1)
    return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), entropy


def sample(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Returns tokens int64 (...) and their log-probabilities, from uniform numbers in [0, 1) of shape (...).

    Inverting the cumulative distribution makes a token depend on its own number and logits only, so a world's
    tokens stay the same whichever other worlds are still running.
    """
    scaled = F.log_softmax(logits.float() / temperature, dim=-1)
    cumulative = scaled.double().exp().cumsum(-1)
    # Scaled by the sum, so that rounding cannot leave a number above the last bin.
    threshold = uniform.double().unsqueeze(-1) * cumulative[..., -1:]
    tokens = (cumulative <= threshold).sum(-1).clamp(max=logits.shape[-1] - 1)
    return tokens, scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def decode(logits: Tensor, decoding: Decoding) -> Tensor:
    """Returns the most likely bin (argmax) or the expected bin (mean), float32 (...)."""
    if decoding == "argmax":
        return logits.argmax(-1).float()
    index = torch.arange(logits.shape[-1], dtype=torch.float32, device=logits.device)
    return logits.float().softmax(-1) @ index
