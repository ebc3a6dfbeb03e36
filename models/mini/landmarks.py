"""The judge that colours cannot fool: it says which part of a figure lies where, and in which paint, and so whether a picture shows the
demo's robot: a square blue body, a square blue head of its own with eyes, grey arms, and two of panel, feet and antenna in orange;
no hat, ears or beak.

    python -m models.mini.landmarks --work build/mini

It is trained on figures whose parts and paints are drawn apart from each other, so that no part tells of another. Where a picture is
blurred by two pixels or more, small parts are not there.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional as F

from models.mini.budget import Count, choose_device, load_checkpoint, save_checkpoint, set_rate, threads
from models.mini.judged import BARE, FAKE_KINDS, MARKS, PAINTS, list_splits, load_judged, render_judged
from models.mini.renders import SIZE, halve
from models.mini.vae import round_trip, to_tensor

PEAK_RATE, BLURRED, BLUR = 2e-3, 0.2, (2.0, 4.0)
SMALL_PARTS = ("eyes", "mouth", "beak", "antenna", "neck")
CELL, LEAST_SHARE = 16.0, 0.15  # pixels of a cell of the map; a part's share of it that counts, so that doubts do not add up to a part
LEAST = {"eyes": 24, "head": 60, "body": 60, "arms": 24, "panel": 20, "feet": 24, "antenna": 12}  # pixels that make a part
MUST, MAY, ENOUGH = ("body", "head", "eyes", "arms"), ("panel", "feet", "antenna"), 2
NEVER, FOREIGN = ("hat", "ears", "beak"), 20  # parts that the robot has not; with so many pixels of one it is another toy
LANDMARKS = ("eyes", "antenna", "panel", "arms", "feet", "head")
ROBOT_PAINTS = {"body": "blue", "head": "blue", "arms": "grey", "panel": "orange", "feet": "orange", "antenna": "orange"}
FACING = 60  # pixels: with fewer of its eyes in view a robot stands sideways, and its panel is hidden too


class Landmarks(nn.Module):
    """Pictures (N, 3, 128, 128) in -1..1 to logits of the part (N, M, 32, 32) and of the paint (N, P, 32, 32) in every cell."""

    def __init__(self, widths=(16, 32, 48, 72, 96)):
        super().__init__()
        first, second, third, fourth, fifth = widths
        self.down = nn.ModuleList(
            [
                nn.Sequential(_layer(3, first, 2), _layer(first, second, 2), _layer(second, third)),
                nn.Sequential(_layer(third, fourth, 2), _layer(fourth, fourth)),
                nn.Sequential(_layer(fourth, fifth, 2), _layer(fifth, fifth)),
                nn.Sequential(_layer(fifth, fifth, 2), _layer(fifth, fifth)),
            ]
        )
        self.up = nn.ModuleList([_layer(2 * fifth, fifth), _layer(fifth + fourth, fourth), _layer(fourth + third, third)])
        self.parts, self.paints = nn.Conv2d(third, len(MARKS), 1), nn.Conv2d(third, len(PAINTS), 1)

    def forward(self, x):
        seen = []
        for stage in self.down:
            x = stage(x)
            seen.append(x)
        for stage, skip in zip(self.up, reversed(seen[:-1]), strict=True):
            x = stage(torch.cat([F.interpolate(x, scale_factor=2.0), skip], 1))
        return self.parts(x), self.paints(x)


def _layer(inputs, outputs, stride=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True))


def blur(x, sigma):
    """Gaussian, of pictures (N, 3, H, W)."""
    reach = int(3 * sigma + 1)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2).to(x)
    line = (line / line.sum()).repeat(3, 1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), line[:, None, None], groups=3)
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="reflect"), line[:, None, :, None], groups=3)


def roughen(x, shares):
    """What a decoder or a sampler does to a picture, which its parts survive: little blurs, grain, noise in patches of 8 px. A share of
    the batch is blurred for good, and there the small parts count as nothing."""
    gone = torch.rand(len(x)) < BLURRED
    if gone.any():
        x, shares = x.clone(), shares.clone()
        x[gone] = blur(x[gone], float(torch.empty(()).uniform_(*BLUR)))
        small = [MARKS.index(part) for part in SMALL_PARTS]
        shares[gone, 0] += shares[gone][:, small].sum(1)
        shares[gone[:, None] & torch.isin(torch.arange(len(MARKS)), torch.tensor(small))] = 0
    if torch.rand(()) < 0.5:
        x = torch.where(gone.view(-1, 1, 1, 1), x, blur(x, float(torch.empty(()).uniform_(0.3, 0.8))))
    coarse = F.interpolate(0.06 * torch.rand(()) * torch.randn(len(x), 3, SIZE // 8, SIZE // 8), scale_factor=8.0)
    return (x + coarse + 0.08 * torch.rand(()) * torch.randn_like(x)).clamp(-1, 1), shares


@threads(1)
def train(work, pictures, batch=32, save_every=120):
    """Trains until so many pictures have been seen; saves `work`/landmarks.safetensors in fp16."""
    device, path = choose_device(), work / "landmarks.pt"
    for split, scenes, seed in list_splits():
        render_judged(work, split, scenes, seed)
    shown, shares, paints, _ = load_judged(work, "judge")
    net = Landmarks().to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, weight_decay=0.02)
    state = load_checkpoint(path)
    count, saved, steps, rng = Count(pictures, state["seen"] if state else 0), time.time(), 0, np.random.default_rng()
    if state:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    while count.share() < 1:
        set_rate(optimizer, count.rate(PEAK_RATE, decay=0.5))
        rows = rng.integers(len(shown), size=batch)
        share = torch.from_numpy(shares[rows]).permute(0, 3, 1, 2).float() / shares[0, 0, 0].sum()
        x, share = roughen(to_tensor(shown[rows]), share)
        paint = torch.from_numpy(paints[rows]).long().to(device)
        with torch.autocast(device, torch.bfloat16):
            parts, painted = net(x.to(device))
        named = -(share.to(device) * F.log_softmax(parts.float(), 1)).sum(1)
        weight = torch.where(share[:, 0] < 0.9, 3.0, 1.0).to(device)  # most cells are ground
        loss = (named * weight).mean() + 0.3 * F.cross_entropy(painted.float(), paint, ignore_index=len(PAINTS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count.add(batch)
        steps += 1
        if steps % 50 == 0:
            print(f"landmarks {count.report()}, loss {loss.item():.4f}", flush=True)
        if time.time() - saved > save_every:
            save_checkpoint(path, net=net.state_dict(), optimizer=optimizer.state_dict(), seen=count.done.item())
            saved = time.time()
    save_model(net.eval().half(), str(work / "landmarks.safetensors"))
    print(json.dumps(measure(load_landmarks(work / "landmarks.safetensors"), work), indent=2), flush=True)


def load_landmarks(path):
    net = Landmarks().half()
    load_model(net, str(path))
    return net.float().eval()


@torch.no_grad()
def find_parts(net, pictures):
    """For each picture (N, 128, 128, 3) uint8 what of a figure is in it: {part: (pixels, paint)}."""
    found = []
    for chunk in to_tensor(pictures).split(64):
        parts, paints = net(chunk)
        parts, paints = parts.softmax(1), paints.softmax(1)
        pixels = CELL * parts.where(parts >= LEAST_SHARE, torch.zeros(())).sum((2, 3))
        worn = torch.einsum("nmhw,nphw->nmp", parts, paints).argmax(-1)
        for size, paint in zip(pixels.tolist(), worn.tolist(), strict=True):
            found.append({mark: (area, PAINTS[p]) for mark, area, p in zip(MARKS[1:], size[1:], paint[1:], strict=True)})
    return found


def list_landmarks(parts):
    """Which of the six landmarks are there, whatever their paint."""
    area = {part: pixels for part, (pixels, _) in parts.items()}
    area["head"] = area["square head"] + area["round head"]
    area["arms"] += area["hands"]
    return {part for part in LANDMARKS if area[part] >= LEAST[part]}


def is_robot(parts):
    """The demo's robot: its paints, its square body and head, and at least five of the six landmarks, eyes, arms and head among them; no
    part that the robot has not."""
    right = dict(parts)
    for part in ("body", "head"):
        right[part] = parts[f"square {part}"]
        if parts[f"round {part}"][0] > right[part][0]:
            return False
    if any(parts[part][0] >= FOREIGN for part in NEVER):
        return False
    there = {p for p in (*MUST, *MAY) if right[p][0] >= LEAST[p] and ROBOT_PAINTS.get(p, right[p][1]) == right[p][1]}
    return set(MUST) <= there and len(there & set(MAY)) >= ENOUGH


def share_of_robots(net, pictures):
    return float(np.mean([is_robot(parts) for parts in find_parts(net, pictures)]))


def measure(net, work, split="judge_test"):
    """Shares called a robot: of real renders that show its face, of each sort of fake; and how often each landmark is told rightly on
    any toy, where it is plainly there or plainly not."""
    pictures, shares, _, records = load_judged(work, split)
    found, groups = find_parts(net, pictures), np.array([record["group"] for record in records])
    facing = np.array([record["eyes"] >= FACING for record in records])
    robots = np.array([is_robot(parts) for parts in found])
    figures = {"robot, facing": round(float(robots[(groups == "robot") & facing].mean()), 3)}
    fakes = ("other paints", *BARE, *FAKE_KINDS, "little left", "other toy in its paints", "any toy")
    figures |= {group: round(float(robots[groups == group].mean()), 3) for group in fakes}
    truth = shares.astype(np.float32).sum((1, 2)) * CELL / shares[0, 0, 0].sum()
    toys = [i for i in range(len(groups)) if groups[i] == "any toy"]
    for part in LANDMARKS:
        names = {"head": ("square head", "round head"), "arms": ("arms", "hands")}.get(part, (part,))
        area = truth[:, [MARKS.index(name) for name in names]].sum(1)
        sure = [i for i in toys if area[i] < 1 or area[i] >= LEAST[part] * 1.5]
        figures[f"{part} told rightly"] = round(float(np.mean([(part in list_landmarks(found[i])) == (area[i] >= 1) for i in sure])), 3)
    return figures


def through_autoencoder(net, vae, work, split="judge_test"):
    """The share of facing robots that are still robots after encoding and decoding."""
    pictures, _, _, records = load_judged(work, split)
    rows = [i for i, r in enumerate(records) if r["group"] == "robot" and r["eyes"] >= FACING]
    side = vae.config.sample_size
    given = pictures[rows] if side == SIZE else halve(pictures[rows])
    again = np.uint8((round_trip(vae, given).permute(0, 2, 3, 1).cpu().numpy() + 1) * 127.5 + 0.5)
    return round(share_of_robots(net, again.repeat(SIZE // side, 1).repeat(SIZE // side, 2)), 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=60_000, help="to see, counted across restarts")
    args = parser.parse_args()
    train(args.work, args.pictures)


if __name__ == "__main__":
    main()
