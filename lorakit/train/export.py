"""Stage export: writes the LoRA file that most tools load, with its metadata, and reads it back as they do."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import lorakit
from lorakit import files
from lorakit.bases import families
from lorakit.bases.families.base import Family
from lorakit.bases.load import load_family
from lorakit.bases.quantised import QuantisedLinear
from lorakit.console import say, warn
from lorakit.errors import LorakitError
from lorakit.lora_file import formats, verify
from lorakit.lora_file.formats import Adapter, LayerAdapter
from lorakit.project import Project, stamps
from lorakit.project.runs import Run
from lorakit.settings import Train
from lorakit.train import checkpoint, lora
from lorakit.train.cache import cache, load_latents, load_text, readings
from lorakit.train.loss import picture_sizes
from lorakit.train.picked import exported_step
from lorakit.train.sample import trained_run

# How far a layer's change may be from the trained one, of its size. bf16 keeps 8 bits of each factor, which costs 2e-3.
ROUNDING = {torch.float32: 1e-3, torch.float16: 1e-3, torch.bfloat16: 4e-3}
GLANCE = 32  # side of the latents on which the finished file is tried
THUMBNAIL = 256  # pixels
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def export(project: Project) -> Run:
    """Write `<name>.safetensors` into the run folder, and check that what the tools read back is what was trained.

    Raises `LorakitError` when a layer is missing in the file, its weight change differs from the trained one, or a tool
    that knows this base would not load all of it.
    """
    run = trained_run(project)
    stamp = stamps.export(project)
    if run.is_done("export", stamp) and run.lora:
        return run
    settings, family = project.settings.export, load_family(project)
    network = formats.with_uniform_alpha(formats.from_adapter(checkpoint.load_adapter(run, exported_step(project, run))))
    tensors = formats.write(network, family.NAME, file_format(project, family), DTYPES[settings.precision])
    path = run.folder / f"{file_name(project)}.safetensors"
    metadata = make_metadata(project, run, tensors, path.stem) if settings.metadata else None
    files.write_whole(path, lambda part: save_file(tensors, part, metadata=metadata))
    written = check_file(path, network, family.NAME)
    loaded = check_tools(path, family.NAME, chosen=settings.format != "auto")
    difference = check_loaded(path, written, family, ForwardProbe(project, family))
    run.finish("export", stamp, lora=path.name, modules=len(network), bytes=path.stat().st_size, loaded=loaded, difference=difference)
    counts = ", ".join(f"{tool} {count}" for tool, count in loaded.items())
    say(f"export    {len(network)} modules, {path.stat().st_size / 2**20:.1f} MB, read back equal; keys loaded: {counts} of {len(tensors)}")
    return run


def file_format(project: Project, family: type[Family] | Family) -> str:
    """LoKr and LoHa stand in kohya's form, under LyCORIS' names, whatever the base: that is where tools look for them."""
    chosen = project.settings.export.format
    usual = "kohya" if project.settings.train.adapter in ("lokr", "loha") else family.FORMAT
    return usual if chosen == "auto" else chosen


def check_file(path: Path, network: Adapter, family: str) -> Adapter:
    """Hold the weight change of every layer in the file against the trained one; they may differ by the file's rounding.
    Returns what the file says."""
    tensors = load_file(path)
    found = formats.read(tensors, family)
    if found.keys() != network.keys():
        missing = sorted(network.keys() ^ found.keys())
        raise LorakitError(f"{path}: {len(missing)} layers are not as trained, the first {missing[0]}; please report this")
    precision = next(tensor.dtype for tensor in tensors.values() if tensor.dim() > 1)
    for name, delta in network.items():
        check_change(path, name, found[name].change(), delta, ROUNDING[precision])
    return found


def check_change(path: Path, name: str, found: Tensor, trained: LayerAdapter, limit: float) -> None:
    wanted = trained.change()
    if (found - wanted).norm() > limit * wanted.norm() + 1e-7:
        raise LorakitError(
            f"{path}: layer {name} differs from the trained one by {(found - wanted).norm() / wanted.norm():.1e} of its size; "
            "where export.precision=fp32 mends it, fp16 was too coarse for a change so small, else please report this"
        )


class ForwardProbe:
    """One prediction of the denoiser on a trained photo: small, from fixed noise, enough to see whether a LoRA acts."""

    def __init__(self, project: Project, family: Family):
        self.family, self.record = family, cache(project)[0]
        self.text = load_text(project, readings(project, self.record)[0])
        latents = load_latents(project, self.record)["mean"][None, :, :GLANCE, :GLANCE]
        generator = torch.Generator().manual_seed(0)
        self.timesteps = family.process.draw_timesteps(latents.shape, generator)
        self.noisy = family.process.add(
            *(t.to(family.device) for t in (latents, torch.randn(latents.shape, generator=generator), self.timesteps))
        )

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """[1, C, h, w] on the CPU in fp32."""
        family = self.family
        text = family.embedded({name: tensor[None].to(family.device) for name, tensor in self.text.items()})
        sizes = torch.tensor([picture_sizes(self.record)], device=family.device)
        return family.predict(self.noisy, self.timesteps.to(family.device), text, sizes).float().cpu()


def check_loaded(path: Path, written: Adapter, family: Family, glance: Callable[[], Tensor]) -> float:
    """Load the file as its users do: through diffusers where that loads all of it, else by the formulas of the format.
    Returns by how much of its size the denoiser's prediction differs from the base's.

    Raises `LorakitError` when a layer's change is not the file's, or the prediction stays as it was."""
    before = glance()
    _, (diffusers,) = verify.judge_file(path, ("diffusers",), family.NAME)
    if diffusers.is_whole:
        load_in_diffusers(path, written, family)
    else:
        add_to_weights(written, family)
    after = glance()
    difference = ((after - before).norm() / before.norm()).item()
    if not torch.isfinite(after).all():
        raise LorakitError(f"{path}: with it the base predicts what is no number; train again with a lower train.learning_rate")
    if not difference > 0:
        raise LorakitError(f"{path}: changes nothing of what the base predicts; was train.learning_rate zero, or train.steps too small?")
    return round(difference, 6)


def load_in_diffusers(path: Path, written: Adapter, family: Family) -> None:
    """Load the file as a user of diffusers does, and hold every layer's weight change against the file's."""
    pipeline = family.bare_pipeline()
    pipeline.load_lora_weights(path.parent, weight_name=path.name, adapter_name="exported")  # offline, older diffusers want both
    loaded = {
        lora.canonical_name(folder, name): module
        for folder, model in lora.models(family).items()
        for name, module in model.named_modules()
        if "exported" in getattr(module, "lora_A", {})
    }
    if loaded.keys() != written.keys():
        raise LorakitError(f"{path}: diffusers loads {len(loaded)} layers of {len(written)}; please report this")
    with safe_open(path, "pt") as file:
        precision = next(file.get_tensor(key).dtype for key in file.keys() if file.get_slice(key).get_shape())
    limit = max(ROUNDING[precision], ROUNDING[family.dtype])
    for name, module in loaded.items():
        down, up = module.lora_A["exported"].weight, module.lora_B["exported"].weight
        change = up.detach().float().flatten(1) @ down.detach().float().flatten(1) * module.scaling["exported"]
        check_change(path, name, change.cpu(), written[name], limit)
        wanted = written[name].magnitude
        if wanted is None:
            continue
        found = lora.tensors_of(module, "exported")["lora_magnitude_vector"].detach().float().cpu().flatten()
        if not torch.allclose(found, wanted.float(), rtol=4 * limit):  # of single numbers, not of a whole layer
            raise LorakitError(f"{path}: layer {name} has other DoRA lengths in diffusers; please report this")


@torch.no_grad()
def add_to_weights(network: Adapter, family: Family) -> None:
    """Add every change to the base's own weights, as the tools that load a file do; the base is another after this."""
    modules = {lora.canonical_name(folder, name): m for folder, model in lora.models(family).items() for name, m in model.named_modules()}
    for path, change in network.items():
        if isinstance(modules[path], QuantisedLinear):  # adding would round the change to what the few bits can say
            modules[path].register_forward_hook(partial(_add_to_output, change))
            continue
        weight = modules[path].weight
        new = weight.float().flatten(1) + change.change().to(weight.device)
        if change.magnitude is not None:  # DoRA: each output has the length that was learned
            new = new * (change.magnitude.float().to(weight.device) / new.norm(dim=1))[:, None]
        weight.copy_(new.reshape(weight.shape))


def _add_to_output(change: LayerAdapter, layer: QuantisedLinear, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    base = layer.weight.float()
    new = base + change.change().to(base.device)
    if change.magnitude is not None:
        new = new * (change.magnitude.float().to(base.device) / new.norm(dim=1))[:, None]
    return output + torch.nn.functional.linear(inputs[0].to(output.dtype), (new - base).to(output.dtype))


def check_tools(path: Path, family: str, chosen: bool) -> dict[str, int]:
    """{tool: keys that it loads}. Raises when a tool that knows the base leaves keys out, unless the format was `chosen`
    or is one that this tool has no way to read."""
    _, judgements = verify.judge_file(path, family=family)
    for judgement in judgements:
        knows_base = judgement.tool in families.load(family).TOOLS
        if knows_base and not judgement.is_whole:
            text = " ".join(line.strip() for line in verify.in_words(judgement))
            its_lack = any(adapter in why for why in judgement.skipped.values() for adapter in ("DoRA", "LoKr", "T5"))
            if not chosen and not its_lack:
                raise LorakitError(f"{path}: {text}; please report this")
            warn(text)
    return {judgement.tool: len(judgement.loaded) for judgement in judgements}


def file_name(project: Project) -> str:
    if project.settings.export.name:
        return project.settings.export.name.removesuffix(".safetensors")
    words = [project.trigger or project.folder.name, project.kind.name, project.card.name]
    return re.sub(r"[^\w.-]+", "_", "_".join(words)).strip("._")


def make_metadata(project: Project, run: Run, tensors: dict[str, Tensor], name: str) -> dict[str, str]:
    """The header that A1111, Forge, ComfyUI's managers and model sites read: kohya's `ss_*` and `sshs_*` names and
    ModelSpec 1.0.1. Names only, never a path of this machine."""
    train = project.settings.train
    photos = [r for r in project.manifest.selected if r.get("dataset")]
    hash = formats.tensor_hash(tensors)
    folder = f"1_{project.trigger or project.kind.name}"
    began = (run.folder / "settings.yaml").stat().st_mtime
    metadata = {
        **project.card.metadata,
        **({"ss_sd_model_name": Path(train.weights).name} if train.weights else {}),
        "ss_output_name": name,
        "ss_network_module": "lycoris.kohya" if train.adapter in ("lokr", "loha") else "networks.lora",
        "ss_network_dim": train.rank * (1 if train.init == "kaiming" else 2),
        "ss_network_alpha": lora.file_alpha(train) if train.init == "kaiming" else 2 * train.rank,
        "ss_resolution": f"({train.resolution}, {train.resolution})",
        "ss_num_train_images": sum(r.get("repeats", 1) for r in photos),
        "ss_steps": exported_step(project, run),
        "ss_learning_rate": train.learning_rate,
        "ss_lr_scheduler": train.lr_schedule,
        "ss_batch_size_per_device": train.batch_size,
        "ss_gradient_accumulation_steps": train.gradient_accumulation,
        "ss_seed": train.seed,
        "ss_v2": project.card.metadata.get("ss_base_model_version", "").startswith("sd_v2"),
        "ss_network_args": network_args(train),
        "ss_optimizer": train.optimizer,
        "ss_max_train_steps": run.facts["result"]["steps"],
        "ss_unet_lr": train.learning_rate,
        "ss_text_encoder_lr": text_encoder_rate(train) if train.text_encoder else "",
        "ss_lr_warmup_steps": train.warmup_steps,
        "ss_max_grad_norm": train.max_grad_norm,
        "ss_caption_dropout_rate": train.caption_dropout,
        "ss_shuffle_caption": train.shuffle_tags,
        "ss_gradient_checkpointing": train.gradient_checkpointing,
        "ss_mixed_precision": train.precision,
        "ss_noise_offset": train.noise_offset,
        "ss_min_snr_gamma": train.min_snr_gamma if train.loss_weighting == "min_snr" else "",
        "ss_training_started_at": began,
        "ss_training_finished_at": run.metrics.stat().st_mtime,
        "ss_tag_frequency": {folder: tag_frequency([r["text"] for r in photos])},
        "ss_dataset_dirs": {folder: {"n_repeats": 1, "img_count": len(photos)}},
        "ss_bucket_info": bucket_info(photos),
        "sshs_model_hash": hash,
        "sshs_legacy_hash": hash[:8],
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": name,
        "modelspec.description": f"{project.kind.title} LoRA of {len(photos)} photos for {project.card.title}",
        "modelspec.author": "",
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(began)),
        "modelspec.resolution": f"{train.resolution}x{train.resolution}",
        "modelspec.hash_sha256": f"0x{hash}",
        "modelspec.trigger_phrase": trigger_phrase(project),
        "modelspec.usage_hint": f"write {trigger_phrase(project)!r} into the prompt; {strength_hint(project)}"
        if project.trigger
        else f"no trigger word; {strength_hint(project)}",
        "modelspec.thumbnail": thumbnail(run),
        "modelspec.tags": f"{project.kind.name},lora",
        "lorakit_version": lorakit.__version__,
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items() if value != ""}


def network_args(train: Train) -> dict[str, object]:
    """What LyCORIS and kohya call the adapter's own settings."""
    args: dict[str, object] = {"adapter": train.adapter, "targets": train.targets}
    if train.adapter in ("lokr", "loha"):
        args["algo"] = train.adapter
    extra = {"factor": train.lokr_factor if train.adapter == "lokr" else "", "block_ranks": list(train.block_ranks), "init": train.init}
    return args | {key: value for key, value in extra.items() if value not in ("", [], "kaiming")}


def text_encoder_rate(train: Train) -> float:
    return train.learning_rate if train.text_encoder_rate is None else train.text_encoder_rate


def strength_hint(project: Project) -> str:
    """The strength that a person picked, or the one that is usual."""
    strength = (stamps.pick(project) or {}).get("strength")
    return "begin at strength 0.7" if strength is None else f"best at strength {strength:g}"


def thumbnail(run: Run) -> str:
    """A small JPEG of the first final sample, as a data URI; empty where none was drawn."""
    picture = run.samples / "final" / "0_lora.png"
    if not picture.is_file():
        return ""
    with Image.open(picture) as image:
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def trigger_phrase(project: Project) -> str:
    trigger = project.settings.trigger
    if trigger.teaches == "style" and trigger.word:
        return trigger.word if "style" in trigger.word.lower() else f"{trigger.word} style"
    return " ".join(word for word in (trigger.word, trigger.class_word if trigger.word else None) if word)


def tag_frequency(texts: list[str]) -> dict[str, int]:
    """How often each comma-separated part stands in the texts, the most frequent first."""
    parts = Counter(part.strip() for text in texts for part in text.split(",") if part.strip())
    return dict(parts.most_common())


def bucket_info(photos: list[dict]) -> dict:
    sizes = Counter(tuple(r["crop"]["bucket"]) for r in photos)
    return {"buckets": {str(i): {"resolution": list(size), "count": count} for i, (size, count) in enumerate(sorted(sizes.items()))}}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
