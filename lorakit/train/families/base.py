"""The contract of a family: one architecture a file of this folder, with all its oddities inside, so that the training
loop needs to know none of them. A family file has one function, `load(source, device, dtype) -> Family`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lorakit.weights import Source

Text = dict[str, Tensor]  # embeddings of one text or a batch of texts, by name; the first axis counts texts


class Family(Protocol):
    """A loaded base model. Parts are loaded when they are first asked for."""

    TARGETS: tuple[str, ...]  # names at whose end a module gets a LoRA
    WEIGHT_PREFIX: str  # of the denoiser's modules in a kohya-named file

    @property
    def denoiser(self) -> nn.Module:
        """The U-Net or transformer that the LoRA is trained on."""

    def encode_picture(self, pixels: Tensor) -> dict[str, Tensor]:
        """[1, 3, H, W] in -1..1 -> {"mean", "std"}, each [C, h, w]: the distribution of the scaled latents."""

    def encode_text(self, text: str) -> Text:
        """Embeddings of one text, each [...] without the batch axis."""

    def draw_timesteps(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] random timesteps for training."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """[B, C, h, w] latents on their way to noise."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser shall predict, [B, C, h, w]."""

    def predict(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """The denoiser's prediction, [B, C, h, w]."""

    def pipeline(self) -> Any:
        """A diffusers pipeline around the loaded parts, for sampling."""

    def kohya_name(self, module: str) -> str:
        """'down_blocks.0...to_q' -> the module's name in a kohya file, prefix included."""

    def release_encoders(self) -> None:
        """Free the VAE and the text encoders; they are loaded again when they are needed."""


def stack_texts(texts: list[Text]) -> Text:
    """Several single texts as one batch."""
    return {name: torch.stack([text[name] for text in texts]) for name in texts[0]}
