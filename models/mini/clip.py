"""Trains a small open_clip model on the renders, for curation and for judging captions: which photos show something else.

python -m models.mini.clip --work /tmp/mini --minutes 6
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from models.mini.base import open_tokenizer, tokenize
from models.mini.blip import wanted_shares
from models.mini.budget import Budget, choose_device, set_rate
from models.mini.classifier import roughen
from models.mini.renders import SMALL, load_split
from models.mini.vae import to_tensor
from models.mini.vocabulary import LENGTH
from models.mini.world import COLOURS, OBJECTS, with_article

WEIGHTS = "open_clip_model.safetensors"
PEAK_RATE, BATCH = 2e-3, 192
THING_SHARE = 0.85  # of the steps tell pictures apart by the things in them alone
GREYEST, BRIGHTEST = 0.6, 1.35  # photos are exposed in more ways than renders are


def describe(vocabulary):
    """What open_clip reads from the folder."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {"image_size": SMALL, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64},
            "text_cfg": {
                "context_length": LENGTH,
                "vocab_size": vocabulary,
                "width": 96,
                "heads": 4,
                "layers": 2,
                "hf_tokenizer_name": "mini",  # the tokenizer is in the folder; open_clip asks only that some name stands here
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }


def name_things(record):
    """The least that can be said of a picture: what stands in it, with its colours and without."""
    kinds = record["kinds"]
    coloured = [f"{c} {k}" if c in COLOURS else k for k, c in zip(kinds, record["colours"], strict=True)]
    return [f"a photo of {' and '.join(with_article(words) for words in things)}" for things in (kinds, coloured)]


def contrast(seen, said, words, scale):
    """CLIP's loss, in which every picture of the batch with the same words is a right answer."""
    same = (words[:, None] == words[None]).all(-1).float()
    logits, wanted = scale * seen @ said.T, same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


def expose(x):
    """Each picture of -1..1 a little darker or brighter."""
    gain = torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(GREYEST, BRIGHTEST)
    return ((x + 1) * gain - 1).clamp(-1, 1)


def train(work, minutes):
    """Trains until the minutes are used up, from the model in the work folder where there is one, then saves under
    `work`/clip what open_clip opens as `local-dir:`."""
    device = choose_device()
    tokenizer = open_tokenizer(work)
    pictures, records = load_split(work, "train")
    captions = [caption for record in records for caption in record["captions"]]
    tokens = tokenize(tokenizer, captions).view(len(records), -1, LENGTH)
    things = tokenize(tokenizer, [words for record in records for words in name_things(record)]).view(len(records), -1, LENGTH)
    wanted = wanted_shares(records)
    config = describe(len(tokenizer))
    model, before = open_clip.CLIP(**config["model_cfg"]), work / "clip" / WEIGHTS
    if before.exists():
        model.load_state_dict(load_file(before))
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    budget, step = Budget(minutes), 0
    while budget.share() < 1:
        set_rate(optimizer, budget.rate(PEAK_RATE))
        rows = torch.multinomial(wanted, BATCH, replacement=True)
        told = things if torch.rand(()) < THING_SHARE else tokens
        words = told[rows, torch.randint(told.shape[1], (BATCH,))].to(device)
        with torch.autocast(device, torch.bfloat16):
            seen = model.encode_image(roughen(expose(to_tensor(pictures[rows.numpy()], device))), normalize=True)
            said = model.encode_text(words, normalize=True)
        loss = contrast(seen.float(), said.float(), words, model.logit_scale.exp().clamp(max=100))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"clip step {step} min {budget.spent:.1f} loss {loss.item():.3f}", flush=True)
    save(model.eval(), config, work)
    print(measure(work / "clip", work), flush=True)


def save(model, config, work):
    """A folder as `hf download` makes it of an open_clip model, in fp16, with its tokenizer."""
    folder = work / "clip"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(work / "tokenizer", folder)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, folder / WEIGHTS)


@torch.no_grad()
def measure(folder, work, count=400):
    """Shares of held-out renders of one thing whose kind, and whose colour, is the nearest of the world's words."""
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenize_words = open_clip.get_tokenizer(f"local-dir:{folder}")
    pictures, records = load_split(work, "test")
    plain = [i for i, r in enumerate(records) if len(r["kinds"]) == 1 and r["colours"][0] in COLOURS][:count]
    seen = model.encode_image(torch.stack([prepare(Image.fromarray(pictures[i])) for i in plain]), normalize=True)
    asked = [(kind, colour) for kind in OBJECTS for colour in COLOURS]
    said = model.encode_text(tokenize_words([f"a photo of a {colour} {kind}" for kind, colour in asked]), normalize=True)
    found = [asked[i] for i in (seen @ said.T).argmax(-1).tolist()]
    right = [(k == records[i]["kinds"][0], c == records[i]["colours"][0]) for (k, c), i in zip(found, plain, strict=True)]
    kind, colour = (float(np.mean(column)) for column in zip(*right, strict=True))
    return {"kind": round(kind, 3), "colour": round(colour, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=6)
    args = parser.parse_args()
    train(args.work, args.minutes)


if __name__ == "__main__":
    main()
