"""The judge of `mini`'s pictures: a small network that names thing, colour and style, trained on renders alone.

python -m models.mini.classifier --work /tmp/mini --minutes 8
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn import functional as F

from models.mini.budget import Budget, choose_device, set_rate
from models.mini.renders import SMALL, halve, load_split
from models.mini.styles import STYLES
from models.mini.vae import to_tensor
from models.mini.world import COLOURS, OBJECTS, SUBJECTS, TOY

HEADS = {"kind": [*OBJECTS, TOY, *SUBJECTS], "colour": list(COLOURS), "style": ["photo", *STYLES]}
UNKNOWN = -100  # cross-entropy's own mark for "no label": a toy's or subject's colour, one without a name, any under a style
PEAK_RATE = 2e-3


class Judge(nn.Module):
    """64 px pictures in -1..1 to logits for each head."""

    def __init__(self):
        super().__init__()
        layers = []
        for inputs, outputs, stride in ((3, 32, 2), (32, 48, 1), (48, 64, 2), (64, 96, 2), (96, 128, 1), (128, 160, 2)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.heads = nn.ModuleDict({head: nn.Linear(160 * 16, len(names)) for head, names in HEADS.items()})

    def forward(self, pictures):
        features = self.body(pictures)
        return {head: layer(features) for head, layer in self.heads.items()}


def load_labelled(work, splits):
    """Pictures with one thing each, and their labels by head."""
    pictures, labels = [], []
    for split in splits:
        some, records = load_split(work, split)
        single = [i for i, record in enumerate(records) if len(record["kinds"]) == 1]
        pictures.append(some[single])
        labels += [label(records[i]) for i in single]
    columns = {head: torch.tensor([row[head] for row in labels]) for head in HEADS}
    return np.concatenate(pictures), columns


def label(record):
    kind, style = record["kinds"][0], record.get("style", "photo")
    plain = kind in OBJECTS and style == "photo" and record["colours"][0] in COLOURS
    return {
        "kind": HEADS["kind"].index(kind),
        "colour": HEADS["colour"].index(record["colours"][0]) if plain else UNKNOWN,
        "style": HEADS["style"].index(style),
    }


def roughen(x):
    """Blur, noise and small shifts, so that the judge does not depend on a render's last sharpness."""
    if torch.rand(()) < 0.4:
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    x = x + 0.06 * torch.rand(()) * torch.randn_like(x)
    shift = torch.randint(-4, 5, (2,)).tolist()
    return torch.roll(x, shift, (2, 3)).clamp(-1, 1)


def train(work, minutes, batch=64):
    """Trains until the minutes are used up, from the judge in the work folder where there is one."""
    device, path = choose_device(), work / "judge.safetensors"
    pictures, labels = load_labelled(work, ("train", "subjects", "styles"))
    subjects = [HEADS["kind"].index(name) for name in SUBJECTS]  # subjects and styles are few
    few = torch.isin(labels["kind"], torch.tensor(subjects)) | (labels["style"] != HEADS["style"].index("photo"))
    rare = torch.where(few, 6.0, 1.0)
    judge = (load_judge(path) if path.exists() else Judge()).to(device).train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    budget, step = Budget(minutes), 0
    while budget.share() < 1:
        set_rate(optimizer, budget.rate(PEAK_RATE))
        rows = torch.multinomial(rare, batch, replacement=True)
        with torch.autocast(device, torch.bfloat16):
            logits = judge(roughen(to_tensor(pictures[rows.numpy()], device)))
        loss = sum(F.cross_entropy(logits[head].float(), labels[head][rows].to(device)) for head in HEADS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 200 == 0:
            print(f"classifier step {step} min {budget.spent:.1f} loss {loss.item():.3f}", flush=True)
    save_model(judge.eval().half(), str(path))
    print(measure(load_judge(path), work))


def load_judge(path):
    judge = Judge().half()
    load_model(judge, str(path))
    return judge.float().eval()


@torch.no_grad()
def name_pictures(judge, pictures):
    """What the judge sees in each picture (N, 64, 64, 3), or twice that size: the name under every head."""
    pictures = halve(pictures) if pictures.shape[1] == 2 * SMALL else pictures
    logits = [judge(part) for part in to_tensor(pictures).split(256)]
    best = {head: torch.cat([part[head] for part in logits]).argmax(-1).tolist() for head in HEADS}
    return [{head: HEADS[head][best[head][i]] for head in HEADS} for i in range(len(pictures))]


def measure(judge, work):
    """Accuracy by head on held-out renders, where the head has a true answer."""
    pictures, labels = load_labelled(work, ("test", "toys_test", "subjects_test", "styles_test"))
    seen = name_pictures(judge, pictures)
    scores = {}
    for head, names in HEADS.items():
        known = [i for i, value in enumerate(labels[head].tolist()) if value != UNKNOWN]
        right = [seen[i][head] == names[labels[head][i]] for i in known]
        scores[head] = round(float(np.mean(right)), 4)
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    args = parser.parse_args()
    train(args.work, args.minutes)


if __name__ == "__main__":
    main()
