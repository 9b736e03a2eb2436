"""OpenVLA's decoding: one action token after another, each seen by the next, with the keys and values kept.

A decision is one control step of A tokens. Scoring feeds the given tokens at once (teacher forcing), which gives the
same numbers as decoding them in turn.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import DynamicCache

from training.policies.openvla.config import FIRST_ACTION_ID, LAST_ACTION_ID
from training.policies.openvla.model import OpenVLA
from training.policies.token_distribution import sample

# From the logits float32 (B, vocabulary) of the k-th token, and k, to ids (B,).
Choose = Callable[[Tensor, int], Tensor]


def action_words(logits: Tensor) -> Tensor:
    """Returns the action tokens' columns of logits (..., vocabulary) in the order of bins, (..., 256)."""
    return logits[..., FIRST_ACTION_ID : LAST_ACTION_ID + 1].flip(-1)


def most_likely(logits: Tensor, _: int) -> Tensor:
    """The likeliest action token, as SimpleVLA-RL chooses."""
    return LAST_ACTION_ID - action_words(logits).argmax(-1)


def most_likely_word(logits: Tensor, _: int) -> Tensor:
    """The likeliest word of the whole vocabulary, as OpenVLA chooses; it may be no action token."""
    return logits.argmax(-1)


def sampled(temperature: float, uniform: Tensor) -> Choose:
    """Samples an action token by uniform numbers in [0, 1) of shape (B, tokens)."""
    return lambda logits, number: (
        LAST_ACTION_ID - sample(action_words(logits), temperature, uniform[:, number])[0]
    )


def decode_ids(
    model: OpenVLA, pixel_values: Tensor, state: Tensor, text: Tensor, choose: Choose
) -> tuple[Tensor, Tensor]:
    """Returns ids (B, tokens), chosen one after another, and the logits float32 (B, tokens, vocabulary)."""
    context, lengths = model.context(pixel_values, state, text)
    language = model.language_model
    batch, width = context.shape[:2]
    place = torch.arange(width, device=context.device)
    seen = place[None] < lengths[:, None]
    cache = DynamicCache(config=language.config)
    order = place[None, :] <= place[:, None]
    hidden = language.model(
        inputs_embeds=context.masked_fill(~seen[..., None], 0.0),
        attention_mask=seen[:, None, None, :] & order,
        position_ids=place[None],
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    last = hidden[torch.arange(batch, device=context.device), lengths - 1]
    ids, logits = [], []
    for number in range(model.tokens):
        logits.append(language.lm_head(last).float())
        ids.append(choose(logits[-1], number))
        if number + 1 == model.tokens:
            break
        seen = torch.cat([seen, seen.new_ones(batch, 1)], dim=1)
        last = language.model(
            inputs_embeds=language.model.embed_tokens(ids[-1])[:, None],
            attention_mask=seen[:, None, None, :],
            position_ids=(lengths + number)[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, 0]
    return torch.stack(ids, dim=1), torch.stack(logits, dim=1)


def score_ids(model: OpenVLA, pixel_values: Tensor, state: Tensor, text: Tensor, ids: Tensor) -> Tensor:
    """Returns the logits float32 (B, tokens, vocabulary) that each of the given ids (B, tokens) was chosen from."""
    context, lengths = model.context(pixel_values, state, text)
    batch, _, hidden = context.shape
    fed = model.language_model.model.embed_tokens(ids[:, :-1])
    embeddings = torch.cat([context, context.new_zeros(batch, model.tokens - 1, hidden)], dim=1)
    place = torch.arange(embeddings.shape[1], device=context.device)[None]
    embeddings = embeddings.masked_fill((place >= lengths[:, None])[..., None], 0.0)
    places = lengths[:, None] + torch.arange(model.tokens - 1, device=context.device)
    embeddings = embeddings.scatter(1, places[..., None].expand(-1, -1, hidden), fed)
    states = model.hidden_states(embeddings, place < (lengths + model.tokens - 1)[:, None])
    wanted = (lengths - 1)[:, None] + torch.arange(model.tokens, device=context.device)
    chosen = states.gather(1, wanted[..., None].expand(-1, -1, hidden))
    return model.language_model.lm_head(chosen).float()
