"""Trains the mini BLIP captioner on the same renders and saves it as a folder that transformers opens offline.

python -m models.mini.blip --work /tmp/mini --minutes 15
"""

import argparse
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
)

from models.mini.budget import Budget, choose_device, load_checkpoint, save_checkpoint, set_rate
from models.mini.classifier import load_judge
from models.mini.figures import ROLES
from models.mini.renders import load_split
from models.mini.world import COLOURS, OBJECTS, TOY

WIDTH, PATCH, PEAK_RATE = 152, 8, 1.2e-3
LONGEST = 44  # tokens of a caption
THINGS_WANTED = 3.0  # times as often as a figure, of which there are more than twice as many
WORDS = 3  # of so many steps one teaches the words too
NAMED_TOY = re.compile(rf"\ban? \w+ {TOY}\b")
PART = re.compile(rf"(?:\ban? )?(?:\b(?:square|round) )?\b\w+ (?:{'|'.join(ROLES[1:])})\b")  # "a square red body", "grey arms"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]")
MEAN, SPREAD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def build_processor(captions, folder):
    """Whole caption words as a BERT vocabulary; pictures squeezed to 64 px."""
    words = sorted({word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption)})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n")
    tokenizer = BertTokenizerFast(
        vocab=str(folder / "vocab.txt"),
        bos_token="[DEC]",
        additional_special_tokens=["[ENC]"],
        model_max_length=LONGEST,
    )
    pictures = BlipImageProcessor(size={"height": 64, "width": 64}, resample=3, image_mean=list(MEAN), image_std=list(SPREAD))
    return BlipProcessor(pictures, tokenizer)


def build_model(tokenizer):
    shared = {"hidden_size": WIDTH, "num_attention_heads": 4, "intermediate_size": 3 * WIDTH}
    text = {
        **shared,
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 3,
        "encoder_hidden_size": WIDTH,
        "projection_dim": WIDTH,
        "max_position_embeddings": 64,
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "label_smoothing": 0.0,
    }
    vision = {**shared, "image_size": 64, "patch_size": PATCH, "num_hidden_layers": 4, "projection_dim": WIDTH}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=WIDTH, image_text_hidden_size=WIDTH)
    config.text_config.label_smoothing = 0.0
    return BlipForConditionalGeneration(config)


def tokenize(tokenizer, captions):
    """Token ids (N, LONGEST), with BLIP's own start token in the place of [CLS]."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
    ids = tokens.input_ids
    ids[:, 0] = tokenizer.convert_tokens_to_ids("[DEC]")
    return ids


def to_pixels(pictures, device):
    """uint8 (N, 64, 64, 3), some of them shifted, to normalised (N, 3, 64, 64)."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.roll(x, torch.randint(-3, 4, (2,)).tolist(), (2, 3))


def list_facts(records):
    """(N, M) of 0 and 1: which things, colours and painted parts each picture holds. The vision tower is asked for them beside the words,
    see `train`."""
    said = [{*record["kinds"], *record["colours"], *record["parts"]} for record in records]
    known = [word for word, count in Counter(word for words in said for word in words).items() if count > 50]
    return torch.tensor([[float(word in words) for word in known] for words in said])


def wanted_shares(records):
    """(N,) how often each picture is to be drawn: figures are the most, and things have to be learned too."""
    return torch.tensor([1.0 if TOY in record["kinds"] else THINGS_WANTED for record in records])


def as_described(caption):
    """A caption as someone would write it who sees the figure for the first time: without its made-up name, and its parts from the body on.
    In any order the model would not know what it has said, and says it twice."""
    caption = NAMED_TOY.sub(f"a {TOY}", caption)
    told = PART.findall(caption)
    if len(told) < 2:
        return caption
    start, end = caption.index(told[0]), caption.index(told[-1]) + len(told[-1])
    told.sort(key=lambda fact: ROLES.index(fact.split()[-1]))
    return f"{caption[:start]}{', '.join(told[:-1])} and {told[-1]}{caption[end:]}"


class Teacher:
    """What the judge, a convolutional network that learns from few pictures, sees in each patch of 8 px."""

    WIDTH = 128

    def __init__(self, path, some_pixels):
        self.body = load_judge(path).body[:15].to(some_pixels.device)  # five convolutions: 64 px to 8 x 8
        self.middle, self.spread = 0.0, 1.0
        seen = self(some_pixels)
        self.middle, self.spread = seen.mean((0, 1)), seen.std((0, 1)) + 1e-3

    @torch.no_grad()
    def __call__(self, pixels):
        """(N, 3, 64, 64) to (N, 64, WIDTH), each number with mean 0 and spread 1."""
        return (self.body(pixels).flatten(2).transpose(1, 2) - self.middle) / self.spread


def train(work, minutes, batch=48, save_every=120):
    """Trains until the minutes are used up, then saves under `work`/blip.

    Words alone teach the vision tower slowly. So in every step a small head names things and colours from the mean of
    its patches, and another says of each patch what the judge sees there (Touvron et al. 2021 teach transformers so);
    only every WORDS-th step goes on to the words. Both heads are thrown away at the end.
    """
    device, path = choose_device(), work / "blip.pt"
    pictures, records = load_split(work, "train")
    captions = [as_described(caption) for record in records for caption in record["captions"]]
    processor = build_processor(captions, work / "blip")
    tokens = tokenize(processor.tokenizer, captions).view(len(records), -1, LONGEST)
    facts = list_facts(records)
    wanted = wanted_shares(records)
    model = build_model(processor.tokenizer).to(device).train()
    head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, facts.shape[1])).to(device)
    copy = nn.Linear(WIDTH, Teacher.WIDTH).to(device)
    teacher = Teacher(work / "judge.safetensors", to_pixels(pictures[:: len(pictures) // 500], device))
    trained = [*model.parameters(), *head.parameters(), *copy.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.02)
    state, step, saved = load_checkpoint(path), 0, time.time()
    budget = Budget(minutes, state["spent"] if state else 0.0)
    if state:
        model.load_state_dict(state["model"])
        head.load_state_dict(state["head"])
        copy.load_state_dict(state["copy"])
        optimizer.load_state_dict(state["optimizer"])
    while budget.share() < 1:
        set_rate(optimizer, budget.rate(PEAK_RATE))
        rows = torch.multinomial(wanted, batch, replacement=True)
        pixels = to_pixels(pictures[rows.numpy()], device)
        ids = tokens[rows, torch.randint(tokens.shape[1], (batch,))].to(device)
        known = ids != processor.tokenizer.pad_token_id
        with torch.autocast(device, torch.bfloat16):
            if step % WORDS == 0:
                output = model(pixel_values=pixels, input_ids=ids, attention_mask=known.long(), labels=ids.masked_fill(~known, -100))
                seen, words = output.image_embeds, output.loss
            else:
                seen, words = model.vision_model(pixel_values=pixels).last_hidden_state, 0.0
            named, copied = head(seen.mean(1)), copy(seen[:, 1:])  # the first is no patch
        naming = F.binary_cross_entropy_with_logits(named.float(), facts[rows].to(device))
        copying = F.mse_loss(copied.float(), teacher(pixels))
        optimizer.zero_grad()
        (words + 4 * naming + copying).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            shown = f"words {output.loss.item():.3f} naming {naming.item():.3f} copying {copying.item():.3f}"
            print(f"blip step {step} min {budget.spent:.1f} {shown}", flush=True)
        if time.time() - saved > save_every:
            heads = {"head": head.state_dict(), "copy": copy.state_dict()}
            save_checkpoint(path, model=model.state_dict(), **heads, optimizer=optimizer.state_dict(), spent=budget.spent)
            saved = time.time()
    model.eval().half().save_pretrained(work / "blip")
    processor.save_pretrained(work / "blip")
    print(measure(work / "blip", work), flush=True)


@torch.no_grad()
def write_captions(folder, pictures, batch=64):
    """Captions of pictures (N, 64, 64, 3), by the folder's own model and processor."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    captions = []
    for start in range(0, len(pictures), batch):
        inputs = processor(images=list(pictures[start : start + batch]), return_tensors="pt")
        written = model.generate(**inputs, max_new_tokens=LONGEST, num_beams=1)
        captions += processor.batch_decode(written, skip_special_tokens=True)
    return captions


def measure(folder, work, count=400):
    """Share of held-out renders whose caption names the right thing, the right colour, and both."""
    pictures, records = load_split(work, "test")
    named = [i for i, record in enumerate(records) if set(record["colours"]) <= set(COLOURS)][:count]
    pictures, records = pictures[named], [records[i] for i in named]
    captions = write_captions(folder, pictures)
    kinds, colours = [], []
    for words, record in zip(captions, records, strict=True):
        words = re.findall(r"\w+", words)
        kinds.append([word for word in words if word in OBJECTS] == record["kinds"])
        colours.append([word for word in words if word in COLOURS][:1] == record["colours"])
    both = np.logical_and(kinds, colours)
    return {"kind": float(np.mean(kinds)), "colour": float(np.mean(colours)), "both": float(np.mean(both))}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15)
    args = parser.parse_args()
    train(args.work, args.minutes)


if __name__ == "__main__":
    main()
