"""How a picture becomes noise, and what the denoiser learns from it: the diffusion of SD1.x and SDXL (DDPM), or the
rectified flow of SD3 and FLUX. All chance is drawn on the CPU from the generator that is given."""

from __future__ import annotations

import math

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from lorakit.errors import LorakitError
from lorakit.settings import Train


class Diffusion:
    """DDPM (arXiv:2006.11239): the denoiser predicts the noise, or the velocity (arXiv:2202.00512)."""

    SCHEDULER = DDPMScheduler

    def __init__(self, scheduler: DDPMScheduler, settings: Train):
        changes = {} if settings.prediction == "base" else {"prediction_type": settings.prediction}
        if settings.zero_terminal_snr:
            changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        self.schedule = DDPMScheduler.from_config(scheduler.config, **changes)
        self.settings = settings
        if self.schedule.config.prediction_type not in ("epsilon", "v_prediction"):
            raise LorakitError(f"this base predicts {self.schedule.config.prediction_type}, which lorakit does not train")
        if self.schedule.config.rescale_betas_zero_snr and not self._predicts_velocity:
            raise LorakitError("train.zero_terminal_snr: this base predicts the noise, of which pure noise teaches nothing; leave it off")

    @property
    def _predicts_velocity(self) -> bool:
        return self.schedule.config.prediction_type == "v_prediction"

    def draw_timesteps(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """[B] whole numbers, for latents of `shape` [B, C, h, w]."""
        return torch.randint(0, self.schedule.config.num_train_timesteps, (shape[0],), generator=generator)

    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.schedule.add_noise(latents, noise, timesteps)

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return self.schedule.get_velocity(latents, noise, timesteps) if self._predicts_velocity else noise

    def weight(self, timesteps: Tensor) -> Tensor:
        """[B] weights of the loss: 1, min-SNR (arXiv:2303.09556) or debiased (arXiv:2310.08442)."""
        if self.settings.loss_weighting == "none":
            return torch.ones(len(timesteps), device=timesteps.device)
        left = self.schedule.alphas_cumprod.to(timesteps.device)[timesteps]
        snr = left / (1 - left)
        if self.settings.loss_weighting == "debiased":
            return 1 / (snr + 1) if self._predicts_velocity else snr.clamp(max=1000).rsqrt()
        capped = snr.clamp(max=self.settings.min_snr_gamma)
        return capped / (snr + 1) if self._predicts_velocity else capped / snr


class Flow:
    """Rectified flow (arXiv:2403.03206): latents go to noise on a straight line, the denoiser predicts its direction.
    A timestep is sigma x 1000; sigma 0 is the picture, 1 is noise."""

    SCHEDULER = FlowMatchEulerDiscreteScheduler

    def __init__(self, scheduler: FlowMatchEulerDiscreteScheduler, settings: Train):
        self.schedule, self.settings = scheduler, settings

    def draw_timesteps(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """[B] numbers in 0..1000, for latents of `shape` [B, C, h, w]: more of them near noise, the larger the picture."""
        sigma = self._draw(shape[0], generator)
        if self.settings.timestep_sampling != "sigmoid":
            shift = self.shift(shape)
            sigma = shift * sigma / (1 + (shift - 1) * sigma)
        return sigma * self.schedule.config.num_train_timesteps

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """[count] in 0..1 before the shift; the three densities of arXiv:2403.03206, section 3.1."""
        kind = self.settings.timestep_sampling
        if kind in ("logit_normal", "sigmoid"):
            mean, std = (self.settings.logit_mean, self.settings.logit_std) if kind == "logit_normal" else (0.0, 1.0)
            return torch.sigmoid(mean + std * torch.randn(count, generator=generator))
        uniform = torch.rand(count, generator=generator)
        if kind == "mode":
            return 1 - uniform - 1.29 * (torch.cos(math.pi / 2 * uniform) ** 2 - 1 + uniform)
        return uniform

    def shift(self, shape: torch.Size) -> float:
        """The setting, or the base's own: one number (SD3), or one that grows with the picture (FLUX dev)."""
        config = self.schedule.config
        if self.settings.flow_shift is not None:
            return self.settings.flow_shift
        if not config.use_dynamic_shifting:
            return config.shift
        tokens = (shape[-2] // 2) * (shape[-1] // 2)
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        return math.exp(config.base_shift + slope * (tokens - config.base_image_seq_len))

    def add(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        sigma = (timesteps / self.schedule.config.num_train_timesteps).view(-1, 1, 1, 1)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise - latents

    def weight(self, timesteps: Tensor) -> Tensor:
        return torch.ones(len(timesteps), device=timesteps.device)
