"""Tokens and actions: round trips, and interpolation computed by hand."""

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from rehearsal.action_codec import ActionCodec, knot_values


@st.composite
def codecs(draw: st.DrawFn) -> ActionCodec:
    dim = draw(st.integers(1, 4))
    hold = draw(st.booleans())
    knots = draw(st.integers(1, 4))
    lower = draw(st.lists(st.floats(-3, 2), min_size=dim, max_size=dim))
    widths = draw(st.lists(st.floats(0.01, 6), min_size=dim, max_size=dim))
    return ActionCodec(
        chunk_steps=knots * draw(st.integers(1, 5)),
        knots=knots,
        bins=draw(st.sampled_from([2, 16, 256])),
        lower=tuple(lower),
        upper=tuple(low + width for low, width in zip(lower, widths, strict=True)),
        relative=tuple(draw(st.lists(st.just(False) if hold else st.booleans(), min_size=dim, max_size=dim))),
        hold=hold,
    )


@settings(max_examples=200, deadline=None)
@given(codec=codecs(), seed=st.integers(0, 2**32 - 1))
def test_every_token_comes_back(codec: ActionCodec, seed: int) -> None:
    random = np.random.default_rng(seed)
    tokens = random.integers(0, codec.bins, (3, codec.knots, codec.dim))
    state = random.uniform(-2, 2, (3, codec.dim)).astype(np.float32)
    np.testing.assert_array_equal(codec.encode(codec.decode(tokens, state), state), tokens)


@settings(max_examples=200, deadline=None)
@given(codec=codecs(), seed=st.integers(0, 2**32 - 1))
def test_knots_come_back_within_half_a_bin(codec: ActionCodec, seed: int) -> None:
    random = np.random.default_rng(seed)
    lower, upper = np.array(codec.lower), np.array(codec.upper)
    state = random.uniform(-2, 2, codec.dim)
    origin = np.where(codec.relative, state, 0)
    actions = origin + random.uniform(lower, upper, (codec.chunk_steps, codec.dim))
    decoded = codec.decode(codec.encode(actions, state), state)
    errors = knot_values(decoded, codec.knots, hold=codec.hold) - knot_values(actions, codec.knots, hold=codec.hold)
    assert np.all(np.abs(errors) <= (upper - lower) / codec.bins / 2 + 1e-5)


def codec(**change: object) -> ActionCodec:
    fields = {
        "chunk_steps": 4, "knots": 2, "bins": 10, "lower": (0.0, -1.0), "upper": (1.0, 1.0), "relative": (False, True)
    }
    return ActionCodec(**(fields | change))  # type: ignore[arg-type]


def test_decoding_by_hand() -> None:
    # Dimension 0, absolute: bins 3 and 7 are 0.35 and 0.75, from the state 0.15 in steps of half a knot.
    # Dimension 1, relative to 5: bins 0 and 9 of width 0.2 are 4.1 and 5.9.
    actions = codec().decode(np.array([[3, 0], [7, 9]]), np.array([0.15, 5.0]))
    np.testing.assert_allclose(actions, [[0.25, 4.55], [0.35, 4.1], [0.55, 5.0], [0.75, 5.9]], atol=1e-6)
    assert actions.dtype == np.float32


def test_encoding_by_hand() -> None:
    # Only steps 2 and 4, the knots, count; what lies outside the bounds goes to the edge bins.
    actions = np.array([[9.0, 9.0], [0.35, 4.05], [9.0, 9.0], [1.7, 7.0]])
    np.testing.assert_array_equal(codec().encode(actions, np.array([0.15, 5.0])), [[3, 0], [9, 9]])


def test_one_knot_a_step_reproduces_each_step() -> None:
    tokens = np.arange(8).reshape(4, 2)
    actions = codec(knots=4).decode(tokens, np.array([0.0, 0.0]))
    np.testing.assert_allclose(actions[:, 0], [0.05, 0.25, 0.45, 0.65], atol=1e-6)
    np.testing.assert_allclose(actions[:, 1], [-0.7, -0.3, 0.1, 0.5], atol=1e-6)


def test_a_mean_of_bins_decodes_between_their_centres() -> None:
    # Half of bin 3 (0.35) and half of bin 4 (0.45).
    actions = codec(knots=1).decode(np.array([[3.5, 4.5]]), np.array([0.4, 0.0]))
    np.testing.assert_allclose(actions[-1], [0.4, 0.0], atol=1e-6)


def test_held_knots_by_hand() -> None:
    """Dimension 0 spans 0 to 1 and dimension 1 -1 to 1, in ten bins; the state has three values and is not read."""
    holding = codec(relative=(False, False), hold=True)
    state = np.array([7.0, 8.0, 9.0])
    decoded = holding.decode(np.array([[3, 0], [7, 9]]), state)
    np.testing.assert_allclose(decoded, [[0.35, -0.9], [0.35, -0.9], [0.75, 0.9], [0.75, 0.9]], atol=1e-6)
    assert decoded.dtype == np.float32
    # Means 0.35 and -0.75; 1.5, beyond the bounds, and a gripper that changes sides, 0.
    actions = np.array([[0.1, -1.0], [0.6, -0.5], [1.0, -1.0], [2.0, 1.0]])
    np.testing.assert_array_equal(holding.encode(actions, state), [[3, 1], [9, 5]])


def test_a_codec_written_before_holding_existed_does_not_hold() -> None:
    old = b'{"chunk_steps":4,"knots":2,"bins":10,"lower":[0],"upper":[1],"relative":[true]}'
    assert msgspec.json.decode(old, type=ActionCodec).hold is False


def test_a_batch_decodes_like_its_members() -> None:
    random = np.random.default_rng(0)
    tokens, states = random.integers(0, 10, (5, 2, 2)), random.normal(size=(5, 2))
    batch = codec().decode(tokens, states)
    np.testing.assert_array_equal(batch, [codec().decode(t, s) for t, s in zip(tokens, states, strict=True)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk_steps": 5}, "chunk_steps 5 must be a multiple of knots 2"),
        ({"knots": 0}, "knots 0"),
        ({"bins": 1}, "bins 1"),
        ({"relative": (True,)}, "one entry an action dimension"),
        ({"hold": True}, "relative must be false everywhere"),
        ({"upper": (1.0, -1.0)}, "lower must be below upper"),
        ({"upper": (float("nan"), 1.0)}, "lower must be below upper"),
    ],
)
def test_impossible_codecs_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec(**change)
