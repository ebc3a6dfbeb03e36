"""Text encoders that learn: their gradients beside the library's own, and the whole way to a file that diffusers loads."""

import json

import numpy as np
import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from peft import LoraConfig
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import mse_loss

import lorakit
from lorakit import open_project, pipeline
from lorakit.bases.families.base import stack_texts
from lorakit.lora_file import formats, verify
from lorakit.project import runs, stamps
from lorakit.settings import Train
from lorakit.train import checkpoint, export, lora
from lorakit.train.loss import preservation_loss, step_loss
from lorakit.train.optimizer import make_optimizer

TEXTS = ["zwx mug on a table", "a mug"]
SIZES = torch.tensor([[640, 512, 3, 0, 64, 80], [512, 640, 0, 8, 64, 80]])
T5 = ["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
CLIP = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
PIPELINES = {
    "sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline, "sd3": StableDiffusion3Pipeline, "flux1": FluxPipeline,
}  # fmt: skip
CHANNELS = {"sd15": 4, "sdxl": 4, "sd3": 16, "flux1": 16}


def ddpm(side, predict, latents, noise, timesteps):
    noisy = DDPMScheduler.from_config(side.scheduler.config).add_noise(latents, noise, timesteps)
    return mse_loss(predict(noisy), noise)


def flow(side, predict, latents, noise, timesteps):
    sigmas = (timesteps / 1000).view(-1, 1, 1, 1)
    return mse_loss(predict((1 - sigmas) * latents + sigmas * noise), noise - latents)


def sd15_loss(side, *batch):
    states = side.encode_prompt(TEXTS, "cpu", 1, False)[0]
    return ddpm(side, lambda noisy: side.unet(noisy, batch[2], encoder_hidden_states=states).sample, *batch)


def sdxl_loss(side, *batch):
    states, _, pooled, _ = side.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=False)
    added = {"text_embeds": pooled, "time_ids": SIZES.to(states.dtype)}
    return ddpm(side, lambda noisy: side.unet(noisy, batch[2], encoder_hidden_states=states, added_cond_kwargs=added).sample, *batch)


def sd3_loss(side, *batch):
    states, _, pooled, _ = side.encode_prompt(TEXTS, TEXTS, TEXTS, device="cpu", do_classifier_free_guidance=False)
    return flow(
        side,
        lambda noisy: side.transformer(noisy, encoder_hidden_states=states, pooled_projections=pooled, timestep=batch[2]).sample,
        *batch,
    )


def flux1_loss(side, *batch):
    states, pooled, text_ids = side.encode_prompt(TEXTS, TEXTS, device="cpu")

    def predict(noisy):
        count, channels, height, width = noisy.shape
        found = side.transformer(
            FluxPipeline._pack_latents(noisy, count, channels, height, width), timestep=batch[2] / 1000, guidance=torch.ones(count),
            pooled_projections=pooled, encoder_hidden_states=states, txt_ids=text_ids,
            img_ids=FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, "cpu", noisy.dtype), return_dict=False,
        )[0]  # fmt: skip
        return FluxPipeline._unpack_latents(found, height=height * 8, width=width * 8, vae_scale_factor=8)

    return flow(side, predict, *batch)


@pytest.mark.parametrize(
    ("name", "loss", "t5"),
    [("sd15", sd15_loss, False), pytest.param("sdxl", sdxl_loss, False, marks=pytest.mark.slow), pytest.param("sd3", sd3_loss, False, marks=pytest.mark.slow),
     ("flux1", flux1_loss, False), ("flux1", flux1_loss, True), pytest.param("sd3", sd3_loss, True, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_step_is_the_library_s_own(load_tiny, tiny_base, name, loss, t5):
    """Loss and every gradient, of the text encoders and of the denoiser, to 1e-5 in fp32."""
    settings = Train(rank=4, alpha=2, text_encoder=True, t5=t5, targets="attention")
    family = load_tiny(name, settings)
    parameters = lora.add_lora(family, settings)
    side = PIPELINES[name].from_pretrained(tiny_base(name))
    denoiser = getattr(side, family.FOLDER).requires_grad_(False)
    targets = lora.find_targets(denoiser, family.TARGETS, settings)
    denoiser.add_adapter(LoraConfig(r=4, lora_alpha=2, target_modules=targets), adapter_name="reference")
    parts = [denoiser]
    for encoder in family.learning_encoders:
        parts.append(getattr(side, encoder).requires_grad_(False))
        parts[-1].add_adapter(
            LoraConfig(r=4, lora_alpha=2, target_modules=T5 if encoder in family.t5_encoders() else CLIP),
            adapter_name="reference",
        )
    theirs = [p for part in parts for p in part.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(5)
    for own, other in zip(parameters, theirs, strict=True):
        own.data = torch.randn(own.shape, generator=generator) * 0.1
        other.data = own.data.clone()
    latents, noise = (torch.randn(2, CHANNELS[name], 8, 10, generator=generator) for _ in range(2))
    timesteps = torch.tensor([40, 900]) if CHANNELS[name] == 4 else torch.tensor([120.5, 871.0])

    text = family.embedded(stack_texts([family.prepare_text(text) for text in TEXTS]))
    ours = step_loss(family, latents, noise, timesteps, text, SIZES)
    ours.backward()
    reference = loss(side, latents, noise, timesteps)
    reference.backward()
    assert ours.item() == pytest.approx(reference.item(), rel=1e-5)
    pairs = [
        (own.grad, other.grad) for own, other in zip(parameters, theirs, strict=True) if own.grad is not None or other.grad is not None
    ]
    usual = torch.stack([other.norm() for _, other in pairs]).median()
    assert all((own - other).norm() <= 1e-5 * max(other.norm(), usual) for own, other in pairs)
    in_text = [p for encoder in family.learning_encoders for p in family.encoder(encoder).parameters() if p.requires_grad]
    assert sum(p.grad is not None and bool(p.grad.any()) for p in in_text) >= len(in_text) // 2  # SDXL reads no last layer of its first


def test_clip_and_t5_learn_only_when_they_are_told_to(load_tiny):
    assert load_tiny("sd3", Train(text_encoder=True)).learning_encoders == ("text_encoder", "text_encoder_2")
    assert load_tiny("flux1", Train(text_encoder=True)).learning_encoders == ("text_encoder",)
    assert load_tiny("flux1", Train(text_encoder=True, t5=True)).learning_encoders == ("text_encoder", "text_encoder_2")
    family = load_tiny("sdxl", Train())
    assert family.learning_encoders == ()
    lora.add_lora(family, Train(rank=2))
    assert not any(p.requires_grad for p in family.encoder("text_encoder").parameters())


@pytest.mark.parametrize("name", ["flux1", pytest.param("sd3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", formats.FORMATS)
def test_what_t5_learned_is_in_the_file_and_who_loads_it_is_said(load_tiny, tmp_path, name, form):
    settings = Train(rank=4, alpha=2, text_encoder=True, t5=True, targets="attention", include="blocks.0")
    family, fresh = load_tiny(name, settings), load_tiny(name, settings)
    generator = torch.Generator().manual_seed(0)
    for parameter in lora.add_lora(family, settings):
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    network = formats.from_adapter(lora.read_lora(family))
    path = tmp_path / "lora.safetensors"
    save_file(formats.write(network, name, form, torch.float32), path)
    written = export.check_file(path, network, name)
    in_t5 = {layer for layer in written if layer.startswith(f"{family.t5_encoders()[0]}.encoder.block")}
    assert len(in_t5) == 2 * 7 and formats.read(load_file(path), name).keys() == network.keys()

    _, (comfyui, diffusers) = verify.judge_file(path, ("comfyui", "diffusers"))
    assert comfyui.is_whole
    t5_keys = {key for key in load_file(path) if key.startswith("lora_te3_encoder_block_")}
    assert len(t5_keys) == (3 if form == "kohya" else 2) * len(in_t5) and t5_keys <= diffusers.skipped.keys()
    if form == "diffusers":
        assert diffusers.skipped.keys() == t5_keys and set(diffusers.skipped.values()) == {"diffusers loads no LoRA of T5"}
        family.PIPELINE.from_pretrained(fresh.source.location).load_lora_weights(tmp_path, weight_name=path.name)  # it passes over them

    export.add_to_weights(written, fresh)  # as ComfyUI does
    text = stack_texts([family.prepare_text(text) for text in TEXTS])
    with torch.no_grad():
        wanted, found, base = family.embed(text)["states"], fresh.embed(text)["states"], load_tiny(name, settings).embed(text)["states"]
    assert (found - wanted).norm() <= 1e-4 * wanted.norm() < (base - wanted).norm()


def test_encoders_that_learn_stay_and_are_drawn_with_as_they_are(load_tiny):
    family = load_tiny("sdxl", Train(text_encoder=True))
    lora.add_lora(family, Train(rank=2, text_encoder=True))
    encoder = family.encoder("text_encoder")
    next(family.encode_texts(["a mug"]))
    family.release_encoders()
    assert family.encoder("text_encoder") is encoder and encoder.dtype == torch.float32
    assert [name for name, part in family.sampling_parts().items() if part is not None] == ["unet"]


def test_text_encoders_learn_at_their_own_rate(load_tiny):
    settings = Train(rank=2, text_encoder=True, learning_rate=1e-4, text_encoder_rate=2e-5, lora_plus_ratio=4.0)
    family = load_tiny("sd15", settings)
    lora.add_lora(family, settings)
    groups = make_optimizer(family.denoiser, settings, [family.encoder("text_encoder")]).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-4, 4e-4, 2e-5, 8e-5])
    assert sum(len(group["params"]) for group in groups[2:]) == 2 * 12


def test_preservation_holds_to_the_text_encoder_of_the_base(load_tiny):
    settings = Train(rank=4, text_encoder=True)
    family = load_tiny("sd15", settings)
    lora.add_lora(family, settings)
    text = stack_texts([family.prepare_text(text) for text in TEXTS])
    noisy, timesteps = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([40, 900])
    assert preservation_loss(family, noisy, timesteps, text, SIZES).item() == 0  # a fresh adapter changes nothing
    with torch.no_grad():  # now the text encoder alone
        for name, parameter in family.encoder("text_encoder").named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    loss = preservation_loss(family, noisy, timesteps, text, SIZES)
    loss.backward()
    assert loss.item() > 0
    assert any(p.grad is not None and p.grad.any() for p in family.encoder("text_encoder").parameters())


@pytest.fixture(scope="module")
def taught(tmp_path_factory, tiny_weights):
    """A project whose text encoder and denoiser have learned, in ranks by block; tests must not change it."""
    photos = tmp_path_factory.mktemp("taught") / "photos"
    photos.mkdir()
    for number in range(2):
        coarse = np.random.default_rng(number).integers(0, 255, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((600, 600)).save(photos / f"photo_{number}.jpg", quality=92)
        (photos / f"photo_{number}.txt").write_text(f"a mug, photo_{number}", encoding="utf-8")
    settings = {
        "caption.captioner": "text_files", "select.everything": True, "select.least": 1, "train.rank": 4, "train.resolution": 64,
        "train.bucket_step": 16, "sample.every": 0, "sample.steps": 2, "train.weights": str(tiny_weights), "train.text_encoder": True, "train.text_encoder_rate": 2e-2, "train.alpha": 2,
        "train.learning_rate": 1e-2, "train.block_ranks": {"mid_block": 6, "text_encoder": "3/1.5"}, "sample.prompts": ["zwx mug"], "train.steps": 4,
    }  # fmt: skip
    project = lorakit.new_project(
        photos.parent / "project", photos, base="tiny-random", trigger="zwx", class_word="mug", device="cpu", settings=settings
    )
    pipeline.walk(project, last="export")
    return project


def run_of(project):
    return runs.find(project.folder, stamps.train(project))


def test_file_holds_the_text_encoder_and_every_block_s_rank_and_alpha(taught):
    tensors = load_file(run_of(taught).lora)
    stems = {key.split(".")[0] for key in tensors}
    assert len([stem for stem in stems if stem.startswith("lora_te_text_model_encoder_layers_")]) == 12 and len(stems) == 192 + 12

    def facts(stem):
        return tensors[f"{stem}.lora_down.weight"].shape[0], tensors[f"{stem}.alpha"].item()

    assert facts("lora_te_text_model_encoder_layers_1_mlp_fc2") == (3, 1.5)
    assert facts("lora_unet_mid_block_attentions_0_proj_in") == (6, 2)  # one alpha for a part, or diffusers errs
    assert facts("lora_unet_down_blocks_0_attentions_0_proj_in") == (4, 2)
    assert all(judgement.is_whole for judgement in verify.judge_file(run_of(taught).lora)[1])
    with safe_open(run_of(taught).lora, "pt") as file:
        found = file.metadata()
    assert (found["ss_unet_lr"], found["ss_text_encoder_lr"]) == ("0.01", "0.02")
    assert json.loads(found["ss_network_args"])["block_ranks"] == ["mid_block=6", "text_encoder=3/1.5"]


def test_diffusers_draws_the_same_picture_with_the_file(taught, tiny_weights):
    run = run_of(taught)
    side = StableDiffusionPipeline.from_pretrained(tiny_weights, safety_checker=None)
    side.scheduler = DPMSolverMultistepScheduler.from_config(side.scheduler.config)

    def draw():
        options = {"num_inference_steps": 2, "guidance_scale": 7.0, "generator": torch.Generator().manual_seed(1234)}
        return side("zwx mug", width=64, height=64, output_type="np", **options).images[0]

    ours = {name: np.asarray(Image.open(run.samples / "final" / f"0_{name}.png"), dtype=np.float32) / 255 for name in ("base", "lora")}
    assert np.abs(draw() - ours["base"]).max() <= 0.5 / 255 + 1e-3
    side.load_lora_weights(run.lora.parent, weight_name=run.lora.name)
    with_lora = draw()
    assert np.abs(with_lora - ours["lora"]).max() <= 0.5 / 255 + 1e-3
    side.text_encoder.disable_adapters()
    assert np.abs(draw() - with_lora).max() > 1e-3  # and the text encoder has its share in it


@pytest.mark.slow
def test_resumed_training_of_text_encoders_and_pissa_equals_the_uninterrupted_one(make_dataset):
    from lorakit.train.train import train
    from tests.conftest import stop_after

    project = make_dataset(**{"train.text_encoder": True, "train.init": "pissa", "train.steps": 3, "train.checkpoint_every": 1})
    whole = train(project)
    wanted = checkpoint.load_adapter(whole, 3)
    stop_after(whole, step=1)
    found = checkpoint.load_adapter(train(open_project(project.folder, device="cpu")), 3)
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[key], found[key]) for key in wanted)
    learned = [k for k in wanted if k.startswith("text_encoder") and ".start." not in k and k.endswith(("lora_A.weight", "lora_B.weight"))]
    assert learned and all(not torch.equal(wanted[k], wanted[k.replace(".lora_", ".start.lora_")]) for k in learned)
