"""Trains the autoencoder of `mini`: 64 px pictures to 16 x 16 x 4 latents and back.

python -m models.mini.vae --work /tmp/mini --minutes 8
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from models.mini.budget import Average, Budget, choose_device, load_checkpoint, save_checkpoint, set_rate
from models.mini.renders import load_split
from models.mini.world import ODD, TOY

KL_WEIGHT, EDGE_WEIGHT, HUE_WEIGHT, PEAK_RATE = 1e-4, 0.5, 0.7, 1.5e-3
REFINE_RATE, LATENT_NOISE = 8e-4, 0.04
ENCODE_BATCH = 32
RARE_WEIGHT = 4.0
CROP, CROP_SHARE = 32, 0.7  # most of the budget goes to crops: four times as many for the same work


def build():
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
    )


def to_tensor(pictures, device="cpu"):
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges(x):
    """Differences of neighbouring pixels, down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def hues(x):
    """Red against green and blue against both, a quarter the size: what brightness alone does not say."""
    red, green, blue = F.avg_pool2d(x, 4).unbind(1)
    return torch.stack([red - green, blue - (red + green) / 2], 1)


def reconstruction_loss(output, target):
    """Without the term for hues the first minutes go into brightness alone, and small red and green things turn grey."""
    loss = F.l1_loss(output, target) + 2 * F.mse_loss(output, target) + HUE_WEIGHT * F.l1_loss(hues(output), hues(target))
    return loss + EDGE_WEIGHT * sum(F.l1_loss(a, b) for a, b in zip(edges(output), edges(target), strict=True))


def draw(pictures, batch, share, rng):
    """A batch of whole pictures, or earlier in the run three times as many crops."""
    if share > CROP_SHARE:
        return pictures[rng.integers(len(pictures), size=batch)]
    top, left = rng.integers(pictures.shape[1] - CROP + 1, size=2)
    return pictures[rng.integers(len(pictures), size=3 * batch), top : top + CROP, left : left + CROP]


def train(work, minutes, batch, save_every=120):
    """Trains until the minutes are used up, then saves the averaged weights with their scaling factor."""
    device, path = choose_device(), work / "vae.pt"
    pictures, _ = load_split(work, "train")
    vae = build().to(device)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    average, state = Average(vae.parameters(), 0.995), load_checkpoint(path)
    budget = Budget(minutes, state["spent"] if state else 0.0)
    if state:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        average = Average(vae.parameters(), 0.995)
    step, saved, rng = 0, time.time(), np.random.default_rng()
    while budget.share() < 1:
        set_rate(optimizer, budget.rate(PEAK_RATE))
        target = to_tensor(draw(pictures, batch, budget.share(), rng), device)
        with torch.autocast(device, torch.bfloat16):
            posterior = vae.encode(target).latent_dist
            output = vae.decode(posterior.sample()).sample
        loss = reconstruction_loss(output.float(), target)
        (loss + KL_WEIGHT * posterior.kl().float().mean() / posterior.mean[0].numel()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        step += 1
        if step % 100 == 0:
            decibels = psnr(output, target)
            print(f"vae step {step} min {budget.spent:.1f} loss {loss.item():.4f} psnr {decibels:.2f}", flush=True)
        if time.time() - saved > save_every:
            save_checkpoint(path, vae=vae.state_dict(), optimizer=optimizer.state_dict(), spent=budget.spent)
            saved = time.time()
    average.swap()
    finish(vae.eval(), work, pictures)


def psnr(output, target):
    """Decibels, for pictures in -1..1."""
    return (-10 * torch.log10(F.mse_loss(output.float(), target) / 4)).item()


@torch.no_grad()
def encode(vae, pictures, device):
    """Mean latents (N, 4, 16, 16), not scaled."""
    latents = []
    for start in range(0, len(pictures), ENCODE_BATCH):
        part = to_tensor(pictures[start : start + ENCODE_BATCH], device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            latents.append(vae.encode(part).latent_dist.mean.float().cpu())
    return torch.cat(latents)


@torch.no_grad()
def normalise(vae, latents):
    """Folds a shift and a scale into the convolutions on both sides of the latents, so that every channel has mean 0
    and spread 1, as the noise that a sampler starts from; what the model reconstructs stays the same."""
    mean, spread = latents.mean((0, 2, 3)).to(vae.device), latents.std((0, 2, 3)).to(vae.device)
    inward, outward, count = vae.quant_conv, vae.post_quant_conv, len(mean)
    inward.bias[:count] = (inward.bias[:count] - mean) / spread
    inward.weight[:count] /= spread.view(-1, 1, 1, 1)
    inward.bias[count:] -= 2 * spread.log()  # the second half is the log of the variance
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= spread.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)


def finish(vae, work, pictures):
    """Normalises and saves the model, and caches the latents of the training set."""
    normalise(vae, encode(vae, pictures[:: max(1, len(pictures) // 4000)], vae.device))
    vae.save_pretrained(work / "vae")
    latents = encode(vae, pictures, vae.device)
    torch.save(latents.half(), work / "latents.pt")
    print(f"spread {[round(s, 3) for s in latents.std((0, 2, 3)).tolist()]}")
    print(f"held-out psnr {held_out_psnr(vae, work):.2f} dB", flush=True)


def is_rare(record):
    return record["kinds"] == [TOY] or record["colours"][0].startswith(ODD)


def refine(work, minutes, batch, save_every=150):
    """Trains the decoder further; the encoder, and so every cached latent, stays as it is.

    It can run beside or after the base's own training. A little noise stands for what a sampler gets wrong. Toys and
    paints without a name come more often: they are the nearest to what a LoRA will bring. For most of the budget only the
    middle of a picture is decoded, where things stand.
    """
    device = choose_device()
    pictures, records = load_split(work, "train")
    rare = torch.tensor([RARE_WEIGHT if is_rare(record) else 1.0 for record in records])
    vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
    latents = torch.load(work / "latents.pt", weights_only=True)
    trained = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=REFINE_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    average, budget, step, saved = Average(trained, 0.995), Budget(minutes), 0, time.time()
    while budget.share() < 1:
        set_rate(optimizer, budget.rate(REFINE_RATE))
        rows = torch.multinomial(rare, batch, replacement=True)
        top, left, side = (0, 0, 16) if budget.share() > CROP_SHARE else (*torch.randint(3, 7, (2,)).tolist(), 8)
        given = latents[rows][:, :, top : top + side, left : left + side].float().to(device)
        given = (given + LATENT_NOISE * torch.randn_like(given)) / vae.config.scaling_factor
        with torch.autocast(device, torch.bfloat16):
            output = vae.decode(given).sample
        target = pictures[rows.numpy()][:, 4 * top : 4 * (top + side), 4 * left : 4 * (left + side)]
        loss = reconstruction_loss(output.float(), to_tensor(target, device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        step += 1
        if step % 200 == 0:
            print(f"decoder step {step} min {budget.spent:.1f} loss {loss.item():.4f}", flush=True)
        if time.time() - saved > save_every:
            average.swap()
            vae.save_pretrained(work / "vae")
            average.swap()
            saved = time.time()
    average.swap()
    vae.save_pretrained(work / "vae")
    print(f"held-out psnr {held_out_psnr(vae.eval(), work):.2f} dB", flush=True)


@torch.no_grad()
def held_out_psnr(vae, work):
    """Mean PSNR over the held-out renders of known things."""
    target = to_tensor(load_split(work, "test")[0], vae.device)
    with torch.no_grad():
        output = torch.cat([vae(part).sample for part in target.split(ENCODE_BATCH)])
    return float(np.mean([psnr(o, t) for o, t in zip(output.clamp(-1, 1), target, strict=True)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--refine", action="store_true", help="only train the decoder of a finished autoencoder on")
    args = parser.parse_args()
    (refine if args.refine else train)(args.work, args.minutes, args.batch)


if __name__ == "__main__":
    main()
