"""The network of the digits demo model: 8x8 grey pixels to ten class scores.

Packed into `digits.mar` as the model file; imported by `train.py` and, through TorchServe, by `handler.py`.
It must be the only class in this file (TorchServe picks it by that) and run on Python 3.9 (as TorchServe's image does).
"""

import torch
from torch import nn


class Digits(nn.Module):
    """Two convolutions and one dense layer, about 20,000 parameters; the pixels' range is normalised inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(32 * 4 * 4, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """FP32 [n,1,8,8], each pixel 0 (paper) to 16 (ink) -> FP32 [n,10] unnormalised log-probabilities."""
        scores: torch.Tensor = self.layers(pixels / 16.0)
        return scores
