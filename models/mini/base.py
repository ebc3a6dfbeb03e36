"""Trains the text encoder and the U-Net of `mini` on cached latents, and saves all as an ordinary diffusers folder.

python -m models.mini.base --work /tmp/mini --minutes 70
"""

import argparse
import copy
import os
import shutil
import string
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.mini.budget import Average, Budget, choose_device, load_checkpoint, save_checkpoint, set_rate
from models.mini.renders import load_split
from models.mini.vocabulary import LENGTH, train_tokenizer

WIDTH, PEAK_RATE, SNR_LIMIT = 192, 8e-4, 5.0
CAPTION_DROPOUT, STRANGE_WORD_SHARE = 0.1, 0.04
GUIDANCE, SAMPLER_STEPS = 4.0, 20
SHOWN = (
    "a photo of a red mug on grass",
    "a blue ball in the snow",
    "a yellow car on a wooden floor",
    "a green tree on sand, bright sunlight",
    "a white house on grass, evening light",
    "a purple striped bottle on tiles",
    "an orange cone on concrete",
    "a black chair on a white table, seen from above",
    "a pink bowl on a dark table",
    "a red metal lamp on a wooden floor, from the side",
    "a shiny blue ring on a white table",
    "a green cube on a dark table, studio light",
    "a red ball next to a blue cube on grass",
    "a yellow mug in front of a black bottle",
    "a white car in the snow",
    "a blue house on sand, from above",
)


def build_text_encoder(tokenizer):
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_unet():
    """SD1.5's blocks at less than a hundredth of its size. Attention over 16 x 16 would take a third of every step, so it
    stands at 8 x 8 and 4 x 4 only; to make up for it the whole prompt is also pooled into the embedding of the timestep,
    where every block reads it."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(48, 96, 144),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
    )


def build_scheduler():
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)


def with_strange_words(captions, rng):
    """Puts a made-up word into a few captions, so that the model learns that an unknown word may mean anything."""
    changed = []
    for caption in captions:
        if rng.random() < STRANGE_WORD_SHARE:
            strange = "".join(rng.choice(list(string.ascii_lowercase), rng.integers(3, 6)))
            words = caption.split(" ")
            words.insert(int(rng.integers(len(words))), strange)
            caption = " ".join(words)
        changed.append(caption)
    return changed


def tokenize(tokenizer, captions):
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    return tokens.input_ids


def list_meanings(records):
    """(N, M) of 0 and 1: which of the world's words are true of each picture, the first thing's words and the others' apart."""
    said = []
    for record in records:
        words = {record["surface"], record["light"], record["view"]}
        for place in range(len(record["kinds"])):
            words |= {f"{place} {record[fact][place]}" for fact in ("kinds", "colours", "materials")}
        said.append(words)
    known = [word for word, count in Counter(word for words in said for word in words).items() if count > 20]
    return torch.tensor([[float(word in words) for word in known] for words in said])


def teach_words(text_encoder, tokens, meanings, steps=500, batch=64, rate=1e-3):
    """Teaches a new text encoder what the words mean before any picture is made: from each end of a prompt a layer, thrown
    away afterwards, has to list what is true of it. Without this the first hour of the U-Net goes by with prompts that do little.
    """
    device = tokens.device
    head = torch.nn.Linear(WIDTH, meanings.shape[1]).to(device)
    optimizer = torch.optim.AdamW([*text_encoder.parameters(), *head.parameters()], lr=rate, weight_decay=0.01)
    for step in range(steps):
        set_rate(optimizer, rate * min(1, (step + 1) / 50, (steps - step) / 100))
        rows = torch.randint(len(tokens), (batch,))
        columns = torch.randint(tokens.shape[1], (batch,))
        prompts = tokens[rows.to(device), columns.to(device)]
        listed = head(text_encoder(prompts).last_hidden_state[:, -1])
        loss = F.binary_cross_entropy_with_logits(listed, meanings[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(f"words step {step + 1} loss {loss.item():.4f}", flush=True)


class Batches:
    """Random batches of latents and one of each picture's captions, as token ids."""

    def __init__(self, work, tokenizer, device):
        self.latents = torch.load(work / "latents.pt", weights_only=True).to(device)
        _, records = load_split(work, "train")
        captions = with_strange_words([c for r in records for c in r["captions"]], np.random.default_rng(5))
        self.tokens = tokenize(tokenizer, captions).view(len(records), -1, LENGTH).to(device)
        self.empty = tokenize(tokenizer, [""])[0].to(device)
        self.records = records
        self.device = device

    def draw(self, size):
        rows = torch.randint(len(self.latents), (size,), device=self.device)
        column = torch.randint(self.tokens.shape[1], (size,), device=self.device)
        tokens = self.tokens[rows, column].clone()
        tokens[torch.rand(size, device=self.device) < CAPTION_DROPOUT] = self.empty
        return self.latents[rows].float(), tokens


def denoising_loss(unet, text_encoder, scheduler, latents, tokens):
    """Noise-prediction loss with min-SNR weights (Hang et al. 2023); timesteps are stratified over the batch."""
    size = len(latents)
    grid = (torch.arange(size, device=latents.device) + torch.rand(size, device=latents.device)) / size
    steps = (grid * scheduler.config.num_train_timesteps).long()
    noise = torch.randn_like(latents)
    with torch.autocast(latents.device.type, torch.bfloat16):
        words = text_encoder(tokens).last_hidden_state
        output = unet(scheduler.add_noise(latents, noise, steps), steps, words).sample
    kept = scheduler.alphas_cumprod.to(latents.device)[steps]
    snr = kept / (1 - kept)
    return (F.mse_loss(output.float(), noise, reduction="none").mean((1, 2, 3)) * snr.clamp(max=SNR_LIMIT) / snr).mean()


def assemble(work, unet, text_encoder, tokenizer):
    """The pipeline, from the parts in memory and the autoencoder on disk."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(unet.device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline, prompts, seed=0, batch=32, guidance=GUIDANCE, steps=SAMPLER_STEPS, **options):
    """Pictures (N, 64, 64, 3) uint8; picture i always starts from the noise of seed + i."""
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pictures = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        noise = [torch.Generator().manual_seed(seed + start + i) for i in range(len(part))]
        shown = pipeline(part, generator=noise, guidance_scale=guidance, num_inference_steps=steps, output_type="np", **options)
        pictures.append(np.uint8(shown.images * 255 + 0.5))
    return np.concatenate(pictures)


def save_grid(pictures, path, columns=8, zoom=2):
    """Writes pictures side by side; a last row that is not full is left black."""
    rows = -(-len(pictures) // columns)
    height, width = pictures.shape[1:3]
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[: len(pictures)] = pictures
    sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    Image.fromarray(sheet).resize((columns * width * zoom, rows * height * zoom), Image.Resampling.NEAREST).save(path)


def show_samples(work, unet, text_encoder, tokenizer, name):
    unet.eval()
    pipeline = assemble(work, unet, text_encoder, tokenizer)
    save_grid(sample(pipeline, list(SHOWN)), work / f"samples_{name}.png")
    unet.train()


def open_tokenizer(work):
    """The tokenizer in the work folder, learnt from the captions the first time."""
    folder = work / "tokenizer"
    if not (folder / "vocab.json").exists():
        _, records = load_split(work, "train")
        return train_tokenizer([c for r in records for c in r["captions"]], folder)
    return CLIPTokenizer.from_pretrained(folder)


def build_optimizer(modules):
    return torch.optim.AdamW(modules.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)


def learn(modules, optimizer, scheduler, batches, size, rate):
    """One step; returns its loss."""
    set_rate(optimizer, rate)
    loss = denoising_loss(modules["unet"], modules["text_encoder"], scheduler, *batches.draw(size))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def help_train(seed, modules, work, minutes, spent, batch, parent):
    """A helper's life: steps on weights that it shares with the parent, without locks (Hogwild, Recht et al. 2011)."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    optimizer, scheduler = build_optimizer(modules), build_scheduler()
    batches, budget = Batches(work, open_tokenizer(work), "cpu"), Budget(minutes, spent)
    while budget.share() < 1 and os.getppid() == parent:
        learn(modules, optimizer, scheduler, batches, batch, budget.rate(PEAK_RATE))


def start_helpers(count, modules, work, budget, batch):
    """On a shared CPU, processes of one thread each waste less than threads that wait for each other."""
    if not count:
        return
    modules.share_memory()
    torch.set_num_threads(1)
    context = torch.multiprocessing.get_context("spawn")
    for i in range(count):
        settings = (time.time_ns() % 2**31 + i, modules, work, budget.minutes, budget.spent, batch, os.getpid())
        context.Process(target=help_train, args=settings, daemon=True).start()


def train(work, minutes, batch, save_every, helpers=0):
    """Trains until the minutes are used up, then saves the averaged weights in fp16 under `work`/weights."""
    device, path = choose_device(), work / "base.pt"
    tokenizer = open_tokenizer(work)
    unet, text_encoder = build_unet().to(device), build_text_encoder(tokenizer).to(device)
    modules = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    if device == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass takes a third of a step on a CPU
    optimizer = build_optimizer(modules)
    average, state = Average(modules.parameters()), load_checkpoint(path)
    step, budget = 0, Budget(minutes, state["spent"] if state else 0.0)
    if state:
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, average.steps, step = [v.to(device) for v in state["average"]], state["step"], state["step"]
    batches, scheduler = Batches(work, tokenizer, device), build_scheduler()
    if not state:
        teach_words(text_encoder, batches.tokens, list_meanings(batches.records))
        average = Average(modules.parameters())
    start_helpers(helpers, modules, work, budget, batch)
    running, saved = 1.0, time.time()
    while budget.share() < 1:
        loss = learn(modules, optimizer, scheduler, batches, batch, budget.rate(PEAK_RATE))
        average.update()
        step += 1
        running += 0.01 * (loss - running)
        if step % 100 == 0:
            print(f"base step {step} seen {step * batch} min {budget.spent:.1f} loss {running:.4f}", flush=True)
        if time.time() - saved > save_every * 60:
            average.swap()
            show_samples(work, unet, text_encoder, tokenizer, f"{step:06d}")
            save_weights(work, unet, text_encoder, tokenizer)
            average.swap()
            save_state(path, modules, optimizer, average, step, budget)
            saved = time.time()
    save_state(path, modules, optimizer, average, step, budget)
    average.swap()
    show_samples(work, unet, text_encoder, tokenizer, "final")
    save_weights(work, unet, text_encoder, tokenizer)


def save_state(path, modules, optimizer, average, step, budget):
    """All that a resumed run needs."""
    state = {"modules": modules.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values}
    save_checkpoint(path, **state, step=step, spent=budget.spent)


def save_weights(work, unet, text_encoder, tokenizer):
    """Writes `work`/weights: an ordinary diffusers folder of fp16 safetensors."""
    pipeline = assemble(work, copy.deepcopy(unet), copy.deepcopy(text_encoder), tokenizer)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.to("cpu", torch.float16)
    pipeline.save_pretrained(work / "weights", safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):  # transformers 4 reads these, 5 the tokenizer.json that it wrote
        shutil.copy(work / "tokenizer" / name, work / "weights" / "tokenizer" / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=70)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--helpers", type=int, default=0, help="more processes that train the same weights, CPU only")
    parser.add_argument("--save-every", type=float, default=6, help="minutes between checkpoints and sample grids")
    args = parser.parse_args()
    train(args.work, args.minutes, args.batch, args.save_every, args.helpers)


if __name__ == "__main__":
    main()
