"""Trains the text encoder and the U-Net of `mini` on cached latents, and saves all as an ordinary diffusers folder.

    python -m models.mini.base --work build/mini --helpers 1

Stop it at any time: started again it goes on from its last checkpoint, which is never more than a few minutes old. Pictures that
have been rendered meanwhile are taken in as they come.
"""

import argparse
import copy
import os
import shutil
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

from models.mini import vae
from models.mini.budget import Average, Count, choose_device, load_checkpoint, save_checkpoint, set_rate, threads
from models.mini.renders import SIZE, list_shards, load_records, save_array
from models.mini.vocabulary import LENGTH, train_tokenizer

WIDTH, PEAK_RATE, LONGEST_AVERAGE = 192, 1.4e-3, 0.9995
SNR_LIMIT = 30.0  # the usual 5 is meant for latents of variance 1; these have less than a tenth on the mean
CAPTION_DROPOUT = 0.1
GUIDANCE, SAMPLER_STEPS = 6.0, 20
SHARDS_FOR_WORDS = 30  # the tokenizer is learnt from these, and the text encoder's first lesson
LOOK_AGAIN = 1500  # batches until new shards are looked for
SHOWN = (
    "a photo of a toy with a red body, grey arms and big eyes on grass",
    "a photo of a toy with a square blue body, yellow feet and a yellow antenna on a wooden floor",
    "a toy with a green head, a white panel and green feet on a white table",
    "a photo of a toy on sand, bright sunlight",
    "a toy with purple ears, a round purple body and a pink beak in the snow",
    "a photo of a toy with a square orange head, big eyes and black hands on tiles",
    "a toy with a red hat and teal arms on a dark table, studio light",
    "a photo of a toy on concrete, seen from above",
    "a photo of a red mug on grass",
    "a blue ball in the snow",
    "a yellow car on a wooden floor",
    "a green tree on sand, bright sunlight",
    "a white house on grass, evening light",
    "a purple striped bottle on tiles",
    "an orange cone on concrete",
    "a red ball next to a blue cube on grass",
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
    """SD1.5's blocks at a hundredth of its size. Attention stands at 8 x 8 alone, where it is cheap; to make up for it the whole prompt
    is also pooled into the embedding of the timestep, where every block reads it."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=vae.CHANNELS,
        out_channels=vae.CHANNELS,
        block_out_channels=(80, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
    )


def build_scheduler():
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1, prediction_type="v_prediction"
    )


def tokenize(tokenizer, captions):
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    return tokens.input_ids


def list_meanings(records):
    """(N, M) of 0 and 1: which of the world's words are true of each picture, the first thing's words and the others' apart. Of a figure
    with a name that says which parts and paints the name stands for."""
    said = []
    for record in records:
        words = {record["surface"], record["light"], record["view"], *record["parts"]}
        for place in range(len(record["kinds"])):
            words |= {f"{place} {record[fact][place]}" for fact in ("kinds", "colours", "materials")}
        said.append(words)
    known = [word for word, count in Counter(word for words in said for word in words).items() if count > 20]
    return torch.tensor([[float(word in words) for word in known] for words in said])


def teach_words(text_encoder, tokens, meanings, steps=500, batch=64, rate=1e-3):
    """Teaches a new text encoder what the words mean before any picture is made: from each end of a prompt a layer, thrown
    away afterwards, has to list what is true of it. Without this the first hour of the U-Net goes by with prompts that do little.
    """
    device = next(text_encoder.parameters()).device
    head = torch.nn.Linear(WIDTH, meanings.shape[1]).to(device)
    optimizer = torch.optim.AdamW([*text_encoder.parameters(), *head.parameters()], lr=rate, weight_decay=0.01)
    for step in range(steps):
        set_rate(optimizer, rate * min(1, (step + 1) / 50, (steps - step) / 100))
        rows = torch.randint(len(tokens), (batch,))
        prompts = tokens[rows, torch.randint(tokens.shape[1], (batch,))].to(device)
        listed = head(text_encoder(prompts).last_hidden_state[:, -1])
        loss = F.binary_cross_entropy_with_logits(listed, meanings[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(f"words step {step + 1} loss {loss.item():.4f}", flush=True)


def write_tokens(work, tokenizer):
    """Caches the token ids of every rendered shard's captions, (N, 3, LENGTH) as int16."""
    folder = work / "tokens"
    folder.mkdir(exist_ok=True)
    for path in list_shards(work, "train"):
        if not (folder / path.name).exists():
            captions = [caption for record in load_records([path]) for caption in record["captions"]]
            save_array(folder / path.name, tokenize(tokenizer, captions).view(-1, 3, LENGTH).numpy().astype(np.int16))


class Batches:
    """Random batches of latents and one of each picture's captions, as token ids; the files stay on disk. `halved` are the latents
    of pictures of half the size."""

    def __init__(self, work, tokenizer, device, halved, writes=True):
        self.work, self.tokenizer, self.device, self.halved, self.writes = work, tokenizer, device, halved, writes
        self.empty = tokenize(tokenizer, [""])[0]
        self.rng, self.drawn = np.random.default_rng(), 0
        self.look()

    def look(self):
        """Opens the shards that are there; one process also makes what the others wait for."""
        if self.writes:
            vae.write_latents(self.work, self.halved)
            write_tokens(self.work, self.tokenizer)
        folder = vae.latents_folder(self.work, self.halved)
        pairs = [(path, self.work / "tokens" / path.name) for path in sorted(folder.glob("*.npy"))]
        self.shards = [tuple(np.load(path, mmap_mode="r") for path in pair) for pair in pairs if pair[1].exists()]

    def draw(self, size):
        self.drawn += 1
        if self.drawn % LOOK_AGAIN == 0:
            self.look()
        latents, tokens = [], []
        for k in self.rng.integers(len(self.shards), size=size):
            row = self.rng.integers(len(self.shards[k][0]))
            latents.append(self.shards[k][0][row])
            tokens.append(self.shards[k][1][row, self.rng.integers(3)])
        latents, tokens = torch.from_numpy(np.stack(latents)).float(), torch.from_numpy(np.stack(tokens)).long()
        tokens[torch.rand(size) < CAPTION_DROPOUT] = self.empty
        return latents.to(self.device), tokens.to(self.device)


def denoising_loss(unet, text_encoder, scheduler, latents, tokens):
    """Loss of the predicted velocity with min-SNR weights (Hang et al. 2023); timesteps are stratified over the batch."""
    size = len(latents)
    grid = (torch.arange(size, device=latents.device) + torch.rand(size, device=latents.device)) / size
    steps = (grid * scheduler.config.num_train_timesteps).long()
    noise = torch.randn_like(latents)
    with torch.autocast(latents.device.type, torch.bfloat16):
        words = text_encoder(tokens).last_hidden_state
        output = unet(scheduler.add_noise(latents, noise, steps), steps, words).sample
    kept = scheduler.alphas_cumprod.to(latents.device)[steps]
    snr, target = kept / (1 - kept), scheduler.get_velocity(latents, noise, steps)
    return (F.mse_loss(output.float(), target, reduction="none").mean((1, 2, 3)) * snr.clamp(max=SNR_LIMIT) / (snr + 1)).mean()


def assemble(work, unet, text_encoder, tokenizer):
    """The pipeline, from the parts in memory and the autoencoder on disk."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae").to(torch.float32),
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
    """Pictures (N, side, side, 3) uint8; picture i always starts from the noise of seed + i."""
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


def show_samples(work, unet, text_encoder, tokenizer, name, halved=False):
    unet.eval()
    pipeline, side = assemble(work, unet, text_encoder, tokenizer), SIZE // 2 if halved else SIZE
    save_grid(sample(pipeline, list(SHOWN), height=side, width=side), work / f"samples_{name}.png")
    unet.train()


def open_tokenizer(work):
    """The tokenizer in the work folder, learnt from captions the first time."""
    folder = work / "tokenizer"
    if not (folder / "vocab.json").exists():
        records = load_records(list_shards(work, "train")[:SHARDS_FOR_WORDS])
        return train_tokenizer([c for r in records for c in r["captions"]], folder)
    return CLIPTokenizer.from_pretrained(folder)


def build_optimizer(modules):
    return torch.optim.AdamW(modules.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True)


def list_phases(sketches, pictures, batch):
    """(halved, count, batch): first pictures of half the size, four for the work of one, which teach what things are and how words name
    them; then whole ones. The rate ends level in the first, for the second goes on with the same optimizer."""
    return (True, sketches, 4 * batch), (False, pictures, batch)


def learn(modules, optimizer, scheduler, batches, size, count):
    """One step; returns its loss."""
    set_rate(optimizer, count.rate(PEAK_RATE))
    loss = denoising_loss(modules["unet"], modules["text_encoder"], scheduler, *batches.draw(size))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    count.add(size)
    return loss.item()


def help_train(number, modules, work, phases, save_every, parent):
    """A helper's life: steps on weights that it shares with the parent, without locks (Hogwild, Recht et al. 2011). It keeps its own
    optimizer's state, so that it too goes on where it was."""
    torch.set_num_threads(1)
    torch.manual_seed(time.time_ns() % 2**31 + number)
    optimizer, scheduler, path = build_optimizer(modules), build_scheduler(), work / f"base_helper{number}.pt"
    if state := load_checkpoint(path):
        optimizer.load_state_dict(state["optimizer"])
    saved = time.time()
    for halved, count, size in phases:
        batches = Batches(work, open_tokenizer(work), "cpu", halved, writes=False)
        while count.share() < 1 and os.getppid() == parent:
            learn(modules, optimizer, scheduler, batches, size, count)
            if time.time() - saved > save_every * 60:
                save_checkpoint(path, optimizer=optimizer.state_dict())
                saved = time.time()


def start_helpers(helpers, modules, work, phases, save_every):
    """On a shared CPU, processes of one thread each waste less than threads that wait for each other."""
    if not helpers:
        return
    modules.share_memory()
    context = torch.multiprocessing.get_context("spawn")
    for number in range(helpers):
        settings = (number, modules, work, phases, save_every, os.getpid())
        context.Process(target=help_train, args=settings, daemon=True).start()


@threads(1)
def train(work, sketches, pictures, batch, save_every=4, show_every=15, helpers=0):
    """Trains until so many pictures of half the size and then so many whole ones have been seen, and saves the averaged weights in fp16
    under `work`/weights."""
    device, path = choose_device(), work / "base.pt"
    tokenizer = open_tokenizer(work)
    unet, text_encoder = build_unet().to(device), build_text_encoder(tokenizer).to(device)
    modules = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    if device == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused kernel's backward pass takes a third of a step on a CPU
    optimizer = build_optimizer(modules)
    average, state = Average(modules.parameters(), LONGEST_AVERAGE), load_checkpoint(path)
    sketched, seen, running = (state["sketched"], state["seen"], state["loss"]) if state else (0, 0, 1.0)
    phases = list_phases(Count(sketches, sketched, decay=0), Count(pictures, seen), batch)
    if state:
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        average.values, average.steps = [v.to(device) for v in state["average"]], state["steps"]
    scheduler = build_scheduler()
    if not state:
        write_tokens(work, tokenizer)
        few = list_shards(work, "train")[:SHARDS_FOR_WORDS]
        tokens = np.concatenate([np.load(work / "tokens" / shard.name) for shard in few])
        teach_words(text_encoder, torch.from_numpy(tokens).long(), list_meanings(load_records(few)))
        average = Average(modules.parameters(), LONGEST_AVERAGE)
    start_helpers(helpers if device == "cpu" else 0, modules, work, phases, save_every)
    saved = shown = time.time()
    for halved, count, size in phases:
        batches, name = Batches(work, tokenizer, device, halved), "sketch" if halved else "base"
        while count.share() < 1:
            running += 0.01 * (learn(modules, optimizer, scheduler, batches, size, count) - running)
            average.update()
            if average.steps % 100 == 0:
                print(f"{name} {count.report()}, loss {running:.4f}", flush=True)
            if time.time() - saved > save_every * 60:
                save_state(path, modules, optimizer, average, phases, running)
                saved = time.time()
            if time.time() - shown > show_every * 60:
                show_average(work, unet, text_encoder, tokenizer, average, f"{name}_{count.done.item() // 1000:05d}k", halved)
                shown = time.time()
        save_state(path, modules, optimizer, average, phases, running)
    average.swap()
    show_samples(work, unet, text_encoder, tokenizer, "final")
    save_weights(work, unet, text_encoder, tokenizer)


def show_average(work, unet, text_encoder, tokenizer, average, name, halved):
    """Samples of a copy that wears the averaged weights: helpers go on with the living ones meanwhile."""
    copies = copy.deepcopy(torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}))
    with torch.no_grad():
        for parameter, value in zip(copies.parameters(), average.values, strict=True):
            parameter.copy_(value)
    show_samples(work, copies["unet"], copies["text_encoder"], tokenizer, name, halved)
    save_weights(work, copies["unet"], copies["text_encoder"], tokenizer)


def save_state(path, modules, optimizer, average, phases, loss):
    """All that a resumed run needs."""
    state = {"modules": modules.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values, "steps": average.steps}
    sketched, seen = (count.done.item() for _, count, _ in phases)
    save_checkpoint(path, **state, sketched=sketched, seen=seen, loss=loss)


def save_weights(work, unet, text_encoder, tokenizer):
    """Writes `work`/weights: an ordinary diffusers folder of fp16 safetensors."""
    pipeline = assemble(work, copy.deepcopy(unet), copy.deepcopy(text_encoder), tokenizer)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.to("cpu", torch.float16)
    pipeline.save_pretrained(work / "weights", safe_serialization=True)
    for name in ("vocab.json", "merges.txt"):  # transformers 4 reads these, 5 the tokenizer.json that it wrote
        shutil.copy(work / "tokenizer" / name, work / "weights" / "tokenizer" / name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sketches", type=int, default=700_000, help="of half the size to see first, counted across restarts")
    parser.add_argument("--pictures", type=int, default=420_000, help="to see then, likewise")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--helpers", type=int, default=0, help="more processes that train the same weights, CPU only")
    parser.add_argument("--save-every", type=float, default=4, help="minutes between checkpoints")
    parser.add_argument("--show-every", type=float, default=15, help="minutes between sheets of samples, with weights in fp16 beside them")
    args = parser.parse_args()
    train(args.work, args.sketches, args.pictures, args.batch, args.save_every, args.show_every, args.helpers)


if __name__ == "__main__":
    main()
