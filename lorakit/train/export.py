"""Stage export: writes the LoRA file that most tools load, with its metadata, and reads it back as they do."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

import lorakit
from lorakit import files
from lorakit.bases import families
from lorakit.bases.families.base import Family
from lorakit.bases.load import load_family
from lorakit.bases.quantised import QuantisedLinear
from lorakit.console import say, warn
from lorakit.errors import LorakitError, UnreadablePhoto
from lorakit.lora_file import beside, formats, verify
from lorakit.lora_file.formats import Adapter, LayerAdapter
from lorakit.photos.decode import load_image
from lorakit.project import Project, stamps
from lorakit.project.runs import Run
from lorakit.quality.judge import start_strength
from lorakit.settings import Train
from lorakit.text import trigger_word
from lorakit.train import checkpoint, lora, standing
from lorakit.train.cache import cache, load_latents, load_text, text_variants
from lorakit.train.loss import picture_sizes
from lorakit.train.picked import exported_step
from lorakit.train.trained import begun_run, step_suffix, trained_adapter, trained_run

DEAD = 1e-4  # a layer whose change is below this part of the typical one has learned nothing
GLANCE = 32  # side of the latents on which the finished file is tried
THUMBNAIL = 256  # pixels
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def export(project: Project) -> Run:
    """Write `<name>.safetensors` into the run folder, checked by `write_lora`, and note in run.json what it is."""
    run = trained_run(project)
    stamp = stamps.export(project)
    if run.is_done("export", stamp) and run.has_whole_lora():
        return run
    run.finish("export", stamp, **write_lora(project, run, whole_base(project, run), None, file_name(project)))
    return run


def export_step(project: Project, step: int) -> Path:
    """Write the checkpoint of `step` as `<name>-step000250.safetensors` into the run folder, checked as any; a training that
    was stopped will do. Returns its path; the project's own LoRA stays the one that it was."""
    run = begun_run(project)
    made = write_lora(project, run, whole_base(project, run), step, file_name(project) + step_suffix(step))
    return run.folder / made["lora"]


def whole_base(project: Project, run: Run) -> Family:
    """The base as it was trained on, all of it at one place: where the card was too small for that, in the machine's memory."""
    as_run = standing.as_run(project, run)
    train = as_run.settings.train
    if train.swap_blocks:
        settings = dataclasses.replace(as_run.settings, train=dataclasses.replace(train, swap_blocks=0))
        as_run = dataclasses.replace(as_run, settings=settings, device="cpu")
    return load_family(as_run)


def write_lora(project: Project, run: Run, family: Family, step: int | None, name: str) -> dict[str, Any]:
    """Write `<name>.safetensors` from the checkpoint of `step` (None: the chosen one) and hold what tools read back against
    what was trained. It lies in a folder of its own until every check is passed: a file under its final name is a good one.
    Returns what run.json tells of it. `family` is the base without a LoRA, and has this one in it afterwards.

    Raises `LorakitError` when a layer is missing in the file, its weight change differs from the trained one, or a tool
    that knows this base would not load all of it.
    """
    settings = project.settings.export
    adapter, _ = trained_adapter(project, run, step)
    network = formats.with_uniform_alpha(formats.from_adapter(adapter))
    tensors = formats.write(network, family.NAME, file_format(project, family), DTYPES[settings.precision])
    metadata = make_metadata(project, run, tensors, name, step) | prediction_metadata(family) if settings.metadata else None
    with files.until_whole(run.folder / f"{name}.safetensors") as path:
        path.write_bytes(save(tensors, metadata))  # not save_file, which hides the OSError of a full disk
        written = check_file(path, network, family.NAME)
        loaded = check_tools(path, family.NAME, chosen=settings.format != "auto")
        difference = check_loaded(path, written, family, ForwardProbe(project, family))
        facts = {"lora": path.name, "lora_sum": files.file_hash(path), "modules": len(network), "bytes": path.stat().st_size}
    write_about(project, run, family, step, name)
    say_dead(network)
    counts = ", ".join(f"{tool} {count}" for tool, count in loaded.items())
    say(f"export    {len(network)} modules, {facts['bytes'] / 2**20:.1f} MB, read back equal; keys loaded: {counts} of {len(tensors)}")
    return {**facts, "loaded": loaded, "difference": difference}


def write_about(project: Project, run: Run, family: Family, step: int | None, name: str) -> None:
    """Beside the file what other tools read of it: see `lora_file.beside`."""
    settings, card, config = project.settings, project.card, family.process.schedule.config
    phrase = trigger_phrase(project)
    prompts = run.facts.get("result", {}).get("prompts") or run.facts.get("planned", {}).get("prompts") or [phrase or "a photo"]
    about = beside.About(
        family=family.NAME,
        base=card.title,
        version=card.metadata.get("ss_base_model_version", ""),
        checkpoint=base_file(project),
        phrase=phrase,
        prompt=prompts[0],
        strength=begin_at(project, run),
        side=settings.train.resolution,
        steps=settings.sample.steps,
        guidance=settings.sample.guidance,
        notes=f"{project.kind.title} LoRA for {card.title}; {usage_hint(project, run)}",
        velocity=config.get("prediction_type") == "v_prediction",
        zero_snr=bool(config.get("rescale_betas_zero_snr")),
    )
    lora = run.folder / f"{name}.safetensors"
    try:
        beside.write_beside(lora, about, first_sample(run, step))
    except (SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:  # what Pillow raises for damaged PNGs
        warn(f"{lora.stem}.preview.png: not written, its sample cannot be read ({error})")


def base_file(project: Project) -> str:
    """The base's file, as people mostly have it: the user's own where that is one, else the one that the card names."""
    given = project.settings.train.weights or ""
    name = Path(given).name if given.endswith(".safetensors") else project.card.metadata.get("ss_sd_model_name", project.card.name)
    return name if name.endswith(".safetensors") else f"{name}.safetensors"


def say_dead(network: Adapter) -> None:
    """Name the layers that have (almost) not changed: such as attention over a single token, which has no gradient."""
    typical = typical_change(network)
    dead = [name for name, change in network.items() if change.change().norm() <= DEAD * typical]
    if dead:
        shown = ", ".join(dead[:3]) + (", ..." if len(dead) > 3 else "")
        say(f"export    {len(dead)} of {len(network)} layers have learned (almost) nothing: {shown}")


def file_format(project: Project, family: type[Family] | Family) -> str:
    """LoKr and LoHa stand in kohya's form, under LyCORIS' names, whatever the base: that is where tools look for them."""
    chosen = project.settings.export.format
    usual = "kohya" if project.settings.train.adapter in ("lokr", "loha") else family.FORMAT
    return usual if chosen == "auto" else chosen


def check_file(path: Path, network: Adapter, family: str) -> Adapter:
    """Hold the weight change of every layer in the file against the trained one; they may differ by the file's rounding.
    Returns what the file says."""
    tensors = load_file(path)
    written = formats.read(tensors, family)
    if written.keys() != network.keys():
        missing = sorted(network.keys() ^ written.keys())
        raise LorakitError(f"{path.name}: {len(missing)} layers are not as trained, the first {missing[0]}; please report this")
    precision = next(tensor.dtype for tensor in tensors.values() if tensor.dim() > 1)
    typical = typical_change(network)
    for name, trained in network.items():
        check_change(path, name, written[name].change(), trained, formats.ROUNDING[precision], typical)
    return written


def typical_change(network: Adapter) -> float:
    """The root mean square over layers of how much a layer's weights change (their Frobenius norm)."""
    return math.sqrt(sum(change.change().norm().item() ** 2 for change in network.values()) / len(network))


def check_change(path: Path, name: str, read: Tensor, trained: LayerAdapter, limit: float, typical: float) -> None:
    """A layer may be off by `limit` of its change, or of the `typical` one where its own is smaller: what is next to nothing
    beside the other layers may be rounded to nothing."""
    expected = trained.change()
    difference = (read - expected).norm()
    if difference > limit * max(expected.norm().item(), typical) + 1e-7:
        raise LorakitError(
            f"{path.name}: layer {name} differs from the trained one by {difference / expected.norm():.1e} of its size; "
            "where export.precision=fp32 mends it, fp16 was too coarse for a change so small, else please report this"
        )


class ForwardProbe:
    """One prediction of the denoiser on a trained photo: small, from fixed noise, enough to see whether a LoRA acts."""

    def __init__(self, project: Project, family: Family):
        self.family, self.record = family, cache(project)[0]
        self.text = load_text(project, text_variants(project, self.record)[0])
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
        raise LorakitError(f"{path.name}: with it the base predicts what is no number; train again with a lower train.learning_rate")
    if not difference > 0:
        raise LorakitError(
            f"{path.name}: changes nothing of what the base predicts; was train.learning_rate zero, or train.steps too small?"
        )
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
        raise LorakitError(f"{path.name}: diffusers loads {len(loaded)} layers of {len(written)}; please report this")
    with safe_open(path, "pt") as file:
        precision = next(file.get_tensor(key).dtype for key in file.keys() if file.get_slice(key).get_shape())
    limit, typical = max(formats.ROUNDING[precision], formats.ROUNDING[family.dtype]), typical_change(written)
    for name, module in loaded.items():
        down, up = module.lora_A["exported"].weight, module.lora_B["exported"].weight
        change = up.detach().float().flatten(1) @ down.detach().float().flatten(1) * module.scaling["exported"]
        check_change(path, name, change.cpu(), written[name], limit, typical)
        lengths = written[name].magnitude
        if lengths is None:
            continue
        loaded_lengths = lora.tensors_of(module, "exported")["lora_magnitude_vector"].detach().float().cpu().flatten()
        if not torch.allclose(loaded_lengths, lengths.float(), rtol=4 * limit):  # of single numbers, not of a whole layer
            raise LorakitError(f"{path.name}: layer {name} has other DoRA lengths in diffusers; please report this")


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
                raise LorakitError(f"{path.name}: {text}; please report this")
            warn(text)
    return {judgement.tool: len(judgement.loaded) for judgement in judgements}


def file_name(project: Project) -> str:
    """Of the LoRA file, without its ending: `export.name`, or trigger, kind and base, cut to what file systems take."""
    if project.settings.export.name:
        return project.settings.export.name.removesuffix(".safetensors")
    words = [project.trigger or project.folder.name, project.kind.name, project.card.name]
    return files.short_name(re.sub(r"[^\w.-]+", "_", "_".join(words)).strip("._"))


def make_metadata(project: Project, run: Run, tensors: dict[str, Tensor], name: str, step: int | None = None) -> dict[str, str]:
    """The header that A1111, Forge, ComfyUI's managers and model sites read: kohya's `ss_*` and `sshs_*` names and
    ModelSpec 1.0.1. Names only, never a path of this machine."""
    train = project.settings.train
    photos = [r for r in project.manifest.selected if r.get("dataset")]
    hash = formats.tensor_hash(tensors)
    folder = f"1_{project.trigger or project.kind.name}"
    began, ended = (file_time(path, run) for path in (run.folder / "settings.yaml", run.metrics))
    steps = run.facts.get("result", {}).get("steps", checkpoint.all_steps(run)[-1])  # of a stopped training as many as it has
    metadata = {
        **project.card.metadata,
        **({"ss_sd_model_name": Path(train.weights).name} if train.weights else {}),
        "ss_output_name": name,
        "ss_network_module": "lycoris.kohya" if train.adapter in ("lokr", "loha") else "networks.lora",
        "ss_network_dim": train.rank * (1 if train.init == "kaiming" else 2),
        "ss_network_alpha": lora.file_alpha(train) if train.init == "kaiming" else 2 * train.rank,
        "ss_resolution": f"({train.resolution}, {train.resolution})",
        "ss_num_train_images": sum(r.get("repeats", 1) for r in photos),
        "ss_steps": exported_step(project, run) if step is None else step,
        "ss_learning_rate": train.learning_rate,
        "ss_lr_scheduler": train.lr_schedule,
        "ss_batch_size_per_device": train.batch_size,
        "ss_gradient_accumulation_steps": train.gradient_accumulation,
        "ss_seed": train.seed,
        "ss_v2": project.card.metadata.get("ss_base_model_version", "").startswith("sd_v2"),
        "ss_network_args": network_args(train),
        "ss_optimizer": train.optimizer,
        "ss_max_train_steps": steps,
        "ss_unet_lr": train.learning_rate,
        "ss_text_encoder_lr": text_encoder_rate(train) if train.text_encoder else "",
        "ss_lr_warmup_steps": train.warmup_steps,
        "ss_max_grad_norm": train.max_grad_norm,
        "ss_caption_dropout_rate": train.caption_dropout,
        "ss_shuffle_caption": train.shuffle_tags,
        "ss_gradient_checkpointing": train.checkpoints_gradients,
        "ss_mixed_precision": train.precision,
        "ss_noise_offset": train.noise_offset,
        "ss_min_snr_gamma": train.min_snr_gamma if train.loss_weighting == "min_snr" else "",
        "ss_training_started_at": began,
        "ss_training_finished_at": ended,
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
        "modelspec.usage_hint": usage_hint(project, run),
        "trained_words": [trigger_phrase(project)] if project.trigger else "",
        "modelspec.thumbnail": thumbnail(run, step),
        "modelspec.tags": f"{project.kind.name},lora",
        "lorakit_version": lorakit.__version__,
        **origin_metadata(run),
    }
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items() if value != ""}


def origin_metadata(run: Run) -> dict[str, str]:
    """Which LoRA file the training started from, and that it went on from another training."""
    start, before = run.facts.get("from_lora") or {}, run.continues
    found = {"lorakit_from_lora": start.get("file", ""), "lorakit_from_lora_hash": start.get("hash", "")}
    return found | ({"lorakit_goes_on_from_step": str(before["step"])} if before else {})


def prediction_metadata(family: Family) -> dict[str, str]:
    """What of the base's schedule a tool must know to draw with the LoRA; nothing where it is the usual noise or a flow."""
    config = family.process.schedule.config
    if config.get("prediction_type") != "v_prediction":
        return {}
    found = {"modelspec.prediction_type": "v", "modelspec.predict_key": "v", "ss_v_parameterization": "True"}
    return found | ({"ss_zero_terminal_snr": "True"} if config.get("rescale_betas_zero_snr") else {})


def network_args(train: Train) -> dict[str, object]:
    """What LyCORIS and kohya call the adapter's own settings."""
    args: dict[str, object] = {"adapter": train.adapter, "targets": train.targets}
    if train.adapter in ("lokr", "loha"):
        args["algo"] = train.adapter
    extra = {"factor": train.lokr_factor if train.adapter == "lokr" else "", "block_ranks": list(train.block_ranks), "init": train.init}
    return args | {key: value for key, value in extra.items() if value not in ("", [], "kaiming")}


def text_encoder_rate(train: Train) -> float:
    return train.learning_rate if train.text_encoder_rate is None else train.text_encoder_rate


def begin_at(project: Project, run: Run) -> float:
    """The strength that a person picked, or the one that the pictures or the validation speak for, or the usual one."""
    picked, result = (stamps.pick(project) or {}).get("strength"), run.facts.get("result", {})
    if picked is not None:
        return float(picked)
    return start_strength(result.get("strengths"), result.get("pictures"), stamps.exported_step(project))


def usage_hint(project: Project, run: Run) -> str:
    picked = (stamps.pick(project) or {}).get("strength") is not None
    at = f"{'best at' if picked else 'begin at'} strength {begin_at(project, run):g}"
    return f"write {trigger_phrase(project)!r} into the prompt; {at}" if project.trigger else f"no trigger word; {at}"


def file_time(path: Path, run: Run) -> float:
    """When a file of the run was last written; where it is lost, when run.json was."""
    return (path if path.is_file() else run.folder / "run.json").stat().st_mtime


def first_sample(run: Run, step: int | None = None) -> Path | None:
    """The first final sample, of a checkpoint its own; None where none was drawn."""
    names = ("final/0_lora.png",) if step is None else (f"final{step_suffix(step)}/0_lora.png", f"step_{step:06d}/0.png")
    return next((run.samples / name for name in names if (run.samples / name).is_file()), None)


def thumbnail(run: Run, step: int | None = None) -> str:
    """A small JPEG of `first_sample` as a data URI; empty where there is none."""
    picture = first_sample(run, step)
    if picture is None:
        return ""
    try:
        small = load_image(picture)
    except UnreadablePhoto:
        warn(f"{picture}: cannot be read; the LoRA file has no thumbnail")
        return ""
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def trigger_phrase(project: Project) -> str:
    trigger = project.settings.trigger
    return trigger_word.phrase(trigger.word, trigger.class_word, trigger.teaches)


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
