"""What stands beside a checkpoint in files of its own: the L1 regression head and the state's projector."""

import torch
from torch import Tensor, nn

NORM_EPSILON = 1e-5
RESIDUAL_BLOCKS = 2


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width, eps=NORM_EPSILON), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(x)


class ResidualMLP(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(inputs, eps=NORM_EPSILON)
        self.fc1 = nn.Linear(inputs, width)
        self.mlp_resnet_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(RESIDUAL_BLOCKS))
        self.layer_norm2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.fc2 = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1Head(nn.Module):
    """Action hidden states (B, T A, hidden) -> actions (B, T, A) in [-1, 1], one step from its A states together.

    OpenVLA-OFT (Kim et al. 2025): trained by L1 regression, it gives no probability, and so nothing to reinforce.
    """

    def __init__(self, hidden: int, action_dim: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.model = ResidualMLP(hidden * action_dim, hidden, action_dim)

    def forward(self, states: Tensor) -> Tensor:
        return self.model(states.unflatten(1, (-1, self.action_dim)).flatten(2))


class ProprioProjector(nn.Module):
    """The normalised state (B, S) -> one token (B, 1, hidden)."""

    def __init__(self, state_dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(state_dim, hidden), nn.Linear(hidden, hidden)

    def forward(self, state: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(state))).unsqueeze(1)
