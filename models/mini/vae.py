"""Trains the autoencoder of `mini`: 128 px pictures to 16 x 16 x 24 latents and back.

    python -m models.mini.vae --work build/mini

The latents are the principal components of patches of 8 x 8 px, so they are fixed within a minute, and decoder and base can train at
once. An ordinary `AutoencoderKL` holds that linear code: its skip path is linear all the way to the last norm, where each signal
stands beside its negative and large constants. They make the norm a mere scale, and SiLU(x) - SiLU(-x) = x. The decoder starts as
the best linear one that its upsampling allows, in the same way, and then learns the rest.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn
from torch.nn import functional as F

from models.mini.budget import Average, Count, choose_device, load_checkpoint, save_checkpoint, set_rate, threads
from models.mini.renders import list_shards, load_split, save_array, shrink, to_bytes

PATCH, CHANNELS = 8, 24
WIDTHS, GROUPS = (16, 32, 64, 96), 4
SPREAD = 0.35  # channel k of the latents has the standard deviation (variance k / variance 0) ** SPREAD
LOUD = 12.0  # the constants beside the signals of unit size, see above
SURE = -12.0  # log variance of the posterior: the code is exact
PEAK_RATE, LINEAR_RATE, EDGE_WEIGHT, LATENT_NOISE = 1e-3, 3e-3, 0.5, 0.02
CROP = 64
ENCODE_BATCH = 64


def build():
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=GROUPS,
        sample_size=128,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def to_tensor(pictures, device="cpu"):
    """uint8 (N, H, W, 3) to float (N, 3, H, W) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def sample_pictures(work, split="train", every=4, most=20):
    """Some pictures of each shard, (N, 128, 128, 3) uint8."""
    return np.concatenate([np.load(path, mmap_mode="r")[::every] for path in list_shards(work, split)[:most]])


def list_patches(pictures, side):
    """(N, side * side * 3) float, in -1..1: every patch that lies on the grid, in the order of y, x, channel."""
    count, height, width, _ = pictures.shape
    cut = pictures.reshape(count, height // side, side, width // side, side, 3).transpose(0, 1, 3, 2, 4, 5)
    return torch.from_numpy(cut.reshape(-1, side * side * 3)).float() / 127.5 - 1


def principal(patches, count):
    """(mean, directions (count, D), their variances)."""
    variances, directions = torch.linalg.eigh(torch.cov(patches.T.double()))
    return patches.mean(0), directions.flip(1)[:, :count].T.float(), variances.flip(0)[:count].float()


def fit_code(pictures):
    """The linear code: latents = (patch - mean) @ matrix.T, with matrix (24, 192); and the subspaces of 2 x 2 and 4 x 4 patches
    that the encoder goes through on its way."""
    mean, directions, variances = principal(list_patches(pictures, PATCH), CHANNELS)
    spread = (variances / variances[0]) ** SPREAD
    _, middle, _ = principal(list_patches(pictures, 4), WIDTHS[1])
    return {"mean": mean, "matrix": directions * (spread / variances.sqrt())[:, None], "middle": middle}


def open_code(work):
    """The code in the work folder, fitted the first time."""
    path = work / "code.pt"
    if not path.exists():
        save_checkpoint(path, **fit_code(sample_pictures(work)))
    return load_checkpoint(path)


def encode(code, pictures):
    """Latents (N, 24, H / 8, W / 8) of uint8 pictures: to the last digits what the `AutoencoderKL` says."""
    count, height, width, _ = pictures.shape
    latents = (list_patches(pictures, PATCH) - code["mean"]) @ code["matrix"].T
    return latents.view(count, height // PATCH, width // PATCH, CHANNELS).permute(0, 3, 1, 2)


def silence(model):
    """Every residual branch adds nothing yet."""
    for name, layer in model.named_modules():
        if name.endswith("conv2"):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def place_signals(layer, norm, out, weight, bias, given):
    """Puts linear signals (weight (S, C), bias) through norm and SiLU unchanged: `layer` makes signals, negatives and constants in every
    group, `norm` is scaled to give them back, and `out` gets the kernels `given` (O, S, h, w) on each pair."""
    group, signals = norm.num_channels // norm.num_groups, len(weight)
    each = -(-signals // norm.num_groups)
    for parameter in (*layer.parameters(), *out.parameters()):
        nn.init.zeros_(parameter)
    for s in range(signals):
        at = s // each * group + s % each
        layer.weight[at, :, 0, 0], layer.bias[at] = weight[s], bias[s]
        layer.weight[at + each, :, 0, 0], layer.bias[at + each] = -weight[s], -bias[s]
        out.weight[: len(given), at], out.weight[: len(given), at + each] = given[:, s], -given[:, s]
    constants = torch.arange(norm.num_channels) % group >= 2 * each
    loud = torch.where(torch.arange(norm.num_channels) % 2 == 0, LOUD, -LOUD)
    layer.bias[constants] = loud[constants]
    share = 1 - 2 * each / group
    nn.init.constant_(norm.weight, float(np.sqrt(share * LOUD**2 + (1 - share) * 0.5)))
    nn.init.zeros_(norm.bias)


@torch.no_grad()
def install_encoder(vae, code):
    """Writes the code into the encoder: 2 x 2 pixels to 12 numbers, 2 x 2 of these to 32, 2 x 2 of these to the 24 latents."""
    encoder, (narrow, middle) = vae.encoder, WIDTHS[:2]
    silence(encoder)
    for layer in (encoder.conv_in, vae.quant_conv, *(block.downsamplers[0].conv for block in encoder.down_blocks[:3])):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for k in range(3):
        encoder.conv_in.weight[k, k, 1, 1] = 1
    halvers = [block.downsamplers[0].conv for block in encoder.down_blocks[:3]]
    places = [(y, x) for y in (0, 1) for x in (0, 1)]
    for k, (y, x) in enumerate(places):
        for c in range(3):
            halvers[0].weight[3 * k + c, c, y, x] = 1  # number 3 k + c is channel c of pixel k
    into_middle = code["middle"].view(middle, 2, 2, 2, 2, 3).permute(0, 1, 3, 2, 4, 5).reshape(middle, 4, 12)  # of patch, then of pixel
    for k, (y, x) in enumerate(places):
        halvers[1].weight[:, :12, y, x] = into_middle[:, k]
    for k, block in enumerate(encoder.down_blocks[1:3]):
        shortcut = block.resnets[0].conv_shortcut
        nn.init.zeros_(shortcut.bias)
        nn.init.zeros_(shortcut.weight)
        for i in range((narrow, middle)[k]):
            shortcut.weight[i, i] = 1
    patches = code["matrix"].view(CHANNELS, 2, 4, 2, 4, 3).permute(0, 1, 3, 2, 4, 5).reshape(CHANNELS, 4, 48)
    for k, (y, x) in enumerate(places):
        halvers[2].weight[:CHANNELS, :middle, y, x] = patches[:, k] @ code["middle"].T
    halvers[2].bias[:CHANNELS] = -(code["matrix"] @ code["mean"])
    signals = torch.eye(CHANNELS, WIDTHS[2])
    kernels = torch.zeros(CHANNELS, CHANNELS, 3, 3)
    kernels[range(CHANNELS), range(CHANNELS), 1, 1] = 1
    shortcut = encoder.down_blocks[3].resnets[0].conv_shortcut
    place_signals(shortcut, encoder.conv_norm_out, encoder.conv_out, signals, torch.zeros(CHANNELS), kernels)
    encoder.conv_out.bias[CHANNELS:] = SURE
    vae.quant_conv.weight[range(2 * CHANNELS), range(2 * CHANNELS)] = 1


class LinearDecoder(nn.Module):
    """The skip path of `AutoencoderKL`'s decoder, alone."""

    def __init__(self):
        super().__init__()
        first, second, third, fourth = reversed(WIDTHS)
        self.conv_in = nn.Conv2d(CHANNELS, first, 3, 1, 1)
        self.doubling = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for width in (first, second, third))
        self.narrowing = nn.ModuleList(nn.Conv2d(*widths, 1) for widths in ((first, second), (second, third), (third, GROUPS)))
        self.conv_out = nn.Conv2d(GROUPS, 3, 3, 1, 1)
        for layer in (self.conv_in, *self.doubling, *self.narrowing, self.conv_out):
            nn.init.orthogonal_(layer.weight.data.view(len(layer.weight), -1))
            nn.init.zeros_(layer.bias)

    def forward(self, latents):
        return self.conv_out(self.signals(latents))

    def signals(self, latents):
        x = self.conv_in(latents)
        for double, narrow in zip(self.doubling, self.narrowing, strict=True):
            x = narrow(double(F.interpolate(x, scale_factor=2.0)))
        return x


@torch.no_grad()
def install_decoder(vae, linear, some_latents):
    """Writes a linear decoder into the skip path of the real one."""
    decoder = vae.decoder
    silence(decoder)
    nn.init.zeros_(vae.post_quant_conv.weight)
    nn.init.zeros_(vae.post_quant_conv.bias)
    vae.post_quant_conv.weight[range(CHANNELS), range(CHANNELS)] = 1
    decoder.conv_in.load_state_dict(linear.conv_in.state_dict())
    for block, layer in zip(decoder.up_blocks[:3], linear.doubling, strict=True):
        block.upsamplers[0].conv.load_state_dict(layer.state_dict())
    for block, layer in zip(decoder.up_blocks[1:3], linear.narrowing[:2], strict=True):
        block.resnets[0].conv_shortcut.load_state_dict(layer.state_dict())
    size = linear.signals(some_latents).std((0, 2, 3))
    weight, bias = linear.narrowing[2].weight[:, :, 0, 0] / size[:, None], linear.narrowing[2].bias / size
    kernels = linear.conv_out.weight * size.view(1, -1, 1, 1)
    place_signals(decoder.up_blocks[3].resnets[0].conv_shortcut, decoder.conv_norm_out, decoder.conv_out, weight, bias, kernels)
    decoder.conv_out.bias.copy_(linear.conv_out.bias)


def fit_linear(pictures, code, steps=1200, batch=4):
    """The linear decoder with the least squared error on crops, by Adam: to within a decibel or two of the pseudo-inverse, which
    nearest upsampling cannot hold."""
    linear, rng = LinearDecoder(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(linear.parameters(), lr=LINEAR_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(steps):
        set_rate(optimizer, LINEAR_RATE * min(1.0, (step + 1) / 50, 1.6 * (1 - step / steps)))
        given = draw(pictures, batch, rng)
        loss = F.mse_loss(linear(encode(code, given)), to_tensor(given))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 199:
            print(f"linear decoder step {step + 1} of {steps} error {loss.item():.5f}", flush=True)
    return linear


def edges(x):
    """Differences of neighbouring pixels, down and across."""
    return x[..., 1:, :] - x[..., :-1, :], x[..., :, 1:] - x[..., :, :-1]


def reconstruction_loss(output, target):
    loss = F.l1_loss(output, target) + 2 * F.mse_loss(output, target)
    return loss + EDGE_WEIGHT * sum(F.l1_loss(a, b) for a, b in zip(edges(output), edges(target), strict=True))


def draw(pictures, batch, rng, whole=False):
    """A batch of whole pictures, or of four times as many crops for the same work; most of these from where things stand. Crops alone
    would not do: the norms see other means in a whole picture, and its colours drift."""
    if whole:
        return pictures[rng.integers(len(pictures), size=batch)]
    low, high = (1, 8) if rng.random() < 0.75 else (0, 9)
    top, left = PATCH * rng.integers(low, high, size=2)
    return pictures[rng.integers(len(pictures), size=4 * batch), top : top + CROP, left : left + CROP]


def begin(work, pictures, code):
    """The autoencoder as it is before any training that deserves the name."""
    vae, path = build(), work / "vae_linear.pt"
    if not path.exists():
        linear = fit_linear(pictures, code)
        install_encoder(vae, code)
        install_decoder(vae, linear, encode(code, pictures[:200]))
        save_checkpoint(path, vae=vae.state_dict())
    vae.load_state_dict(load_checkpoint(path)["vae"])
    return vae


@threads(1)  # on shared cores threads wait for each other; the base has the other core
def train(work, crops, batch=4, save_every=120):
    """Trains the decoder until it has seen so many crops of 64 px, and saves its average under `work`/vae on the way."""
    device, path = choose_device(), work / "vae.pt"
    code, pictures = open_code(work), sample_pictures(work, every=3, most=None)
    vae = begin(work, pictures, code).to(device)
    trained = [*vae.post_quant_conv.parameters(), *vae.decoder.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    average, state = Average(trained, 0.998), load_checkpoint(path)
    count = Count(crops, state["seen"] if state else 0)
    if state:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, average.steps = [value.to(device) for value in state["average"]], state["steps"]
    saved, rng, running = time.time(), np.random.default_rng(), 0.0
    while count.share() < 1:
        set_rate(optimizer, count.rate(PEAK_RATE))
        given = draw(pictures, batch, rng, whole=rng.random() < count.share())
        latents, target = encode(code, given).to(device), to_tensor(given, device)
        latents = latents + LATENT_NOISE * torch.randn_like(latents) * torch.rand(len(latents), 1, 1, 1, device=device)
        with torch.autocast(device, torch.bfloat16):
            output = vae.decode(latents).sample
        loss = reconstruction_loss(output.float(), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        average.update()
        count.add(4 * batch)
        running = loss.item() if not running else running + 0.01 * (loss.item() - running)
        if average.steps % 100 == 0:
            print(f"decoder {count.report()}, loss {running:.4f}, crops at {psnr(output, target):.2f} dB", flush=True)
        if time.time() - saved > save_every:
            save_state(work, vae, optimizer, average, count)
            saved = time.time()
    save_state(work, vae, optimizer, average, count)


def save_state(work, vae, optimizer, average, count):
    """All that a resumed run needs, and the averaged model with its sheet of held-out robots."""
    state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values, "steps": average.steps}
    save_checkpoint(work / "vae.pt", **state, seen=count.done.item())
    average.swap()
    vae.save_pretrained(work / "vae")
    print(f"robots {held_out_psnr(vae, work, 'robots_test', 100):.2f} dB", flush=True)
    show(vae, work)
    average.swap()


def psnr(output, target):
    """Decibels, for pictures in -1..1."""
    return (-10 * torch.log10(F.mse_loss(output.float(), target) / 4)).item()


@torch.no_grad()
def round_trip(vae, pictures):
    """Pictures (N, H, W, 3) uint8 through encoder and decoder, (N, 3, H, W) in -1..1."""
    parts = to_tensor(pictures, vae.device).split(ENCODE_BATCH)
    return torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1) for part in parts])


def held_out_psnr(vae, work, split="test", most=800):
    """Mean over the pictures of a held-out split, at the size that the model was made for."""
    pictures = load_split(work, split, side=vae.config.sample_size)[0][:most]
    return float(np.mean([psnr(o, t) for o, t in zip(round_trip(vae, pictures).cpu(), to_tensor(pictures), strict=True)]))


def show(vae, work, count=16):
    """Writes vae.png: rows of real robots, and below each the same through the autoencoder."""
    real = load_split(work, "robots_test", side=128)[0][: 2 * count : 2]
    again = np.uint8((round_trip(vae, real).permute(0, 2, 3, 1).cpu().numpy() + 1) * 127.5 + 0.5)
    rows = [row for half in (slice(0, count // 2), slice(count // 2, None)) for row in (real[half], again[half])]
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows])).save(work / "vae.png")


def latents_folder(work, halved=False):
    """Where the latents of the training split are cached: of whole pictures, or of the same at half their size."""
    return work / ("latents_halved" if halved else "latents")


def write_latents(work, halved=False):
    """Caches the latents of every rendered shard of the training split that has none yet: (N, 24, 16, 16) as float16, or of the
    pictures shrunk to half their size (N, 24, 8, 8)."""
    folder, code = latents_folder(work, halved), open_code(work)
    folder.mkdir(exist_ok=True)
    for path in list_shards(work, "train"):
        if not (folder / path.name).exists():
            pictures = np.load(path)
            if halved:
                pictures = np.stack([to_bytes(shrink(picture / 255, pictures.shape[1] // 2)) for picture in pictures])
            save_array(folder / path.name, encode(code, pictures).half().numpy())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=400_000)
    parser.add_argument("--batch", type=int, default=4, help="whole pictures, or four times as many crops")
    args = parser.parse_args()
    train(args.work, args.crops, args.batch)


if __name__ == "__main__":
    main()
