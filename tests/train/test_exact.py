"""A step of each family beside the published arithmetic: the formulas of diffusers' own training scripts, written here with
the library's functions, on the same weights, noise, timesteps and text. Loss and every gradient agree to 1e-5 in fp32."""

import pytest
import torch
from diffusers import (
    AnimaAutoBlocks,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    Krea2Pipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    ZImagePipeline,
)
from diffusers.modular_pipelines.anima.encoders import AnimaTextEncoderStep
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr
from torch.nn.functional import mse_loss

from lorakit.bases.families.base import stack_texts
from lorakit.settings import Train
from lorakit.train import lora
from lorakit.train.loss import step_loss


class AnimaBlocks:
    """diffusers' blocks for Anima, loaded as a pipeline is."""

    @staticmethod
    def from_pretrained(folder):
        pipeline = AnimaAutoBlocks().init_pipeline(str(folder))
        pipeline.load_components()
        return pipeline


PIPELINES = {
    "sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline, "sd3": StableDiffusion3Pipeline, "flux1": FluxPipeline,
    "chroma1": ChromaPipeline,    "z_image": ZImagePipeline, "flux2": Flux2KleinPipeline, "flux2_dev": Flux2Pipeline, "krea2": Krea2Pipeline,
    "qwen_image": QwenImagePipeline, "anima": AnimaBlocks,
}  # fmt: skip
TEXTS = ["zwx mug on a table", "a mug"]
SIZES = torch.tensor([[640, 512, 3, 0, 64, 80], [512, 640, 0, 8, 64, 80]])  # photo h w, crop top left, picture h w


class Beside:
    """One base twice: lorakit's own, and diffusers' pipeline with the same adapter put in by the library."""

    def __init__(self, load_tiny, tiny_base, family: str, settings: Train):
        self.family, self.settings = load_tiny(family, settings), settings
        parameters = lora.add_lora(self.family, settings)
        self.pipeline = PIPELINES[family].from_pretrained(tiny_base(family))
        self.model = getattr(self.pipeline, self.family.FOLDER).requires_grad_(False)
        targets = lora.find_targets(self.model, self.family.TARGETS, settings, self.family.NOT_TARGETS)
        self.model.add_adapter(lora.make_config(targets, settings), adapter_name="reference")
        generator = torch.Generator().manual_seed(5)
        self.reference = [p for p in self.model.parameters() if p.requires_grad]
        for ours, theirs in zip(parameters, self.reference, strict=True):
            ours.data = torch.randn(ours.shape, generator=generator) * 0.1
            theirs.data = ours.data.clone()
        self.parameters = parameters
        pixels = torch.rand(2, 3, 64, 80, generator=generator) * 2 - 1
        with torch.no_grad():
            self.latents = published_latents(self.pipeline, pixels)
        ours = torch.stack([self.family.encode_picture(p[None])["mean"] for p in pixels])
        assert torch.allclose(ours, self.latents, rtol=1e-4, atol=1e-5)
        self.noise = torch.randn(self.latents.shape, generator=generator)

    def told(self, settings: Train):
        """The same weights, adapter and noise under other settings of the step."""
        scheduler = self.family.part("scheduler", self.family.PROCESS.SCHEDULER)
        self.settings = self.family.settings = settings
        self.family.process = self.family.PROCESS(scheduler, settings)
        for parameter in (*self.parameters, *self.reference):
            parameter.grad = None
        return self

    def ours(self, timesteps):
        text = stack_texts([self.family.encode_text(text) for text in TEXTS])
        loss = step_loss(self.family, self.latents, self.noise, timesteps, text, SIZES)
        loss.backward()
        return loss

    def check(self, timesteps, reference_loss):
        loss = self.ours(timesteps)
        reference_loss.backward()
        assert loss.item() == pytest.approx(reference_loss.item(), rel=1e-5)
        # Sums of floats depend on how threads share them, so a tiny gradient is held to the size of a middling one.
        pairs = zip(self.parameters, self.reference, strict=True)
        learning = [(ours, theirs) for ours, theirs in pairs if ours.grad is not None or theirs.grad is not None]
        usual = torch.stack([theirs.grad.norm() for _, theirs in learning]).median()
        for ours, theirs in learning:
            assert (ours.grad - theirs.grad).norm() <= 1e-5 * max(theirs.grad.norm(), usual)


def published_latents(pipeline, pixels):
    """As the scripts make them: train_dreambooth_lora_krea2.py and train_dreambooth_lora_qwen_image.py for the video's autoencoder,
    train_dreambooth_lora_flux2_klein.py for patches and their BatchNorm."""
    vae = pipeline.vae
    if hasattr(vae, "bn"):
        mean, std = vae.bn.running_mean.view(1, -1, 1, 1), torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)
        return pipeline._unpatchify_latents((pipeline._patchify_latents(vae.encode(pixels).latent_dist.mean) - mean) / std)
    if not isinstance(vae, AutoencoderKLQwenImage):
        return (vae.encode(pixels).latent_dist.mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    mean = torch.tensor(vae.config.latents_mean).view(1, vae.config.z_dim, 1, 1, 1)
    std = 1.0 / torch.tensor(vae.config.latents_std).view(1, vae.config.z_dim, 1, 1, 1)
    return ((vae.encode(pixels.unsqueeze(2)).latent_dist.mean - mean) * std)[:, :, 0]


@pytest.fixture(scope="module")
def built():
    return {}


@pytest.fixture
def beside(load_tiny, tiny_base, built):
    """beside('sd15', **settings) is that base on both sides, built once for whatever of it learns."""

    def make(family: str, **settings):
        given = Train(rank=4, alpha=2, **settings)
        kind = family, given.targets
        if kind not in built:
            built[kind] = Beside(load_tiny, tiny_base, family, given)
        return built[kind].told(given)

    return make


def ddpm_loss(side, predict, timesteps, *, weigh=None, **schedule):
    """train_text_to_image_lora.py: noise or velocity, mean squared error, min-SNR with `compute_snr`."""
    scheduler = DDPMScheduler.from_config(side.pipeline.scheduler.config, **schedule)
    prediction = predict(scheduler.add_noise(side.latents, side.noise, timesteps), timesteps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(side.latents, side.noise, timesteps) if velocity else side.noise
    if weigh is None:
        return mse_loss(prediction, target)
    snr = compute_snr(scheduler, timesteps)
    errors = mse_loss(prediction, target, reduction="none").mean(dim=[1, 2, 3])
    return (errors * weigh(snr, velocity)).mean()


def min_snr(snr, velocity):
    weights = torch.stack([snr, 5.0 * torch.ones_like(snr)], dim=1).min(dim=1)[0]
    return weights / (snr + 1) if velocity else weights / snr


def sd15_predict(side):
    states = side.pipeline.encode_prompt(TEXTS, "cpu", 1, False)[0]
    return lambda noisy, t: side.model(noisy, t, encoder_hidden_states=states).sample


VELOCITY = {"prediction_type": "v_prediction"}


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        ({}, {}),
        ({"prediction": "v_prediction"}, VELOCITY),
        ({"prediction": "v_prediction", "zero_terminal_snr": True}, {**VELOCITY, "rescale_betas_zero_snr": True}),
        ({"loss_weighting": "min_snr"}, {"weigh": min_snr}),
        ({"loss_weighting": "min_snr", "prediction": "v_prediction"}, {"weigh": min_snr, **VELOCITY}),
        ({"loss_weighting": "debiased"}, {"weigh": lambda snr, velocity: 1 / snr.clamp(max=1000).sqrt()}),
    ],
    ids=["noise", "velocity", "zero terminal SNR", "min-SNR", "min-SNR of velocity", "debiased"],
)
def test_sd15(beside, settings, reference):
    side, timesteps = beside("sd15", **settings), torch.tensor([40, 999])
    side.check(timesteps, ddpm_loss(side, sd15_predict(side), timesteps, **reference))


def test_sdxl_with_its_size_conditions(beside):
    side, timesteps = beside("sdxl"), torch.tensor([40, 900])
    states, _, pooled, _ = side.pipeline.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=False)
    ids = torch.cat(
        [side.pipeline._get_add_time_ids((h, w), (t, left), (th, tw), states.dtype, 24) for h, w, t, left, th, tw in SIZES.tolist()]
    )

    def predict(noisy, t):
        return side.model(noisy, t, encoder_hidden_states=states, added_cond_kwargs={"text_embeds": pooled, "time_ids": ids}).sample

    side.check(timesteps, ddpm_loss(side, predict, timesteps))


def flow_loss(side, predict, timesteps):
    """train_dreambooth_lora_sd3.py (--precondition_outputs 0) and train_dreambooth_lora_flux.py, weighting 'none'."""
    sigmas = (timesteps / 1000).view(-1, 1, 1, 1)
    prediction = predict((1.0 - sigmas) * side.latents + sigmas * side.noise, timesteps)
    target = side.noise - side.latents
    return torch.mean(((prediction.float() - target.float()) ** 2).reshape(target.shape[0], -1), 1).mean()


def test_sd3(beside):
    side, timesteps = beside("sd3"), torch.tensor([120.5, 871.0])
    states, _, pooled, _ = side.pipeline.encode_prompt(TEXTS, TEXTS, TEXTS, device="cpu", do_classifier_free_guidance=False)

    def predict(noisy, t):
        return side.model(hidden_states=noisy, timestep=t, encoder_hidden_states=states, pooled_projections=pooled, return_dict=False)[0]

    side.check(timesteps, flow_loss(side, predict, timesteps))


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_flux1_with_guidance_and_packed_latents(beside, guidance):
    side, timesteps = beside("flux1", guidance=guidance), torch.tensor([120.5, 871.0])
    states, pooled, text_ids = side.pipeline.encode_prompt(TEXTS, TEXTS, device="cpu")

    def predict(noisy, t):
        count, channels, height, width = noisy.shape
        ids = FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, "cpu", noisy.dtype)
        packed = FluxPipeline._pack_latents(noisy, count, channels, height, width)
        found = side.model(
            hidden_states=packed, timestep=t / 1000, guidance=torch.tensor([guidance]).expand(count), pooled_projections=pooled,
            encoder_hidden_states=states, txt_ids=text_ids, img_ids=ids, return_dict=False,
        )[0]  # fmt: skip
        return FluxPipeline._unpack_latents(found, height=height * 8, width=width * 8, vae_scale_factor=8)

    side.check(timesteps, flow_loss(side, predict, timesteps))


def test_chroma_with_texts_of_several_lengths(beside):
    """Of no script of diffusers: FLUX.1's without guidance, each text alone with one of its pads."""
    side, timesteps = beside("chroma1", targets="mlp"), torch.tensor([120.5, 871.0])
    states, mask = side.pipeline._get_t5_prompt_embeds(list(TEXTS))
    lengths = mask.sum(1).int().tolist()
    assert len(set(lengths)) == 2 and len(side.reference) == 2 * (2 * 12 + 2 * 5)

    def predict(noisy, t):
        count, channels, height, width = noisy.shape
        ids = FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, "cpu", noisy.dtype)
        packed = FluxPipeline._pack_latents(noisy, count, channels, height, width)
        found = [
            side.model(
                hidden_states=packed[n : n + 1], timestep=t[n : n + 1] / 1000, encoder_hidden_states=states[n : n + 1, :length],
                txt_ids=torch.zeros(length, 3), img_ids=ids, return_dict=False,
            )[0]
            for n, length in enumerate(lengths)
        ]  # fmt: skip
        return FluxPipeline._unpack_latents(torch.cat(found), height=height * 8, width=width * 8, vae_scale_factor=8)

    side.check(timesteps, flow_loss(side, predict, timesteps))


def test_z_image_with_texts_of_several_lengths(beside):
    """train_dreambooth_lora_z_image.py: time runs from noise to picture, and the prediction is that of the opposite direction."""
    side, timesteps = beside("z_image", targets="mlp"), torch.tensor([120.5, 871.0])
    states, _ = side.pipeline.encode_prompt(list(TEXTS), device="cpu", do_classifier_free_guidance=False)
    assert len({len(one) for one in states}) == 2 and len(side.reference) == 2 * 3 * 7  # the refiners learn nothing

    def predict(noisy, t):
        return -torch.stack(side.model(list(noisy.unsqueeze(2)), (1000 - t) / 1000, states, return_dict=False)[0], dim=0).squeeze(2)

    side.check(timesteps, flow_loss(side, predict, timesteps))
    alone = [side.family.predict(side.noise[n : n + 1], timesteps[n : n + 1], {"states": states[n][None]}, SIZES[:1])[0] for n in range(2)]
    together = side.family.predict(side.noise, timesteps, stack_texts([{"states": one} for one in states]), SIZES)
    assert torch.allclose(torch.stack(alone), together, atol=1e-5)


@pytest.mark.parametrize(("name", "guidance"), [("flux2", None), ("flux2_dev", 3.5)])
def test_flux2_in_patches(beside, name, guidance):
    """train_dreambooth_lora_flux2_klein.py and train_dreambooth_lora_flux2.py: noise and loss on the normalised patches, positions of four
    axes, all 512 rows of a text; dev's guidance beside them."""
    side, timesteps = beside(name, targets="mlp", **({"guidance": guidance} if guidance else {})), torch.tensor([120.5, 871.0])
    guided = torch.full([1], guidance).expand(2) if guidance else None
    states, text_ids = side.pipeline.encode_prompt(list(TEXTS), device="cpu")
    assert len(side.reference) == 2 * (2 * 12 + 3 * 2)
    patch, pack = side.pipeline._patchify_latents, side.pipeline._pack_latents
    latents, noise, sigmas = patch(side.latents), patch(side.noise), (timesteps / 1000).view(-1, 1, 1, 1)
    ids = side.pipeline._prepare_latent_ids(latents)
    found = side.model(
        hidden_states=pack((1.0 - sigmas) * latents + sigmas * noise), timestep=timesteps / 1000, guidance=guided, encoder_hidden_states=states,
        txt_ids=text_ids, img_ids=ids, return_dict=False,
    )[0]  # fmt: skip
    found = side.pipeline._unpack_latents_with_ids(found, ids)
    side.check(timesteps, torch.mean(((found.float() - (noise - latents).float()) ** 2).reshape(len(latents), -1), 1).mean())


def test_krea2_with_texts_of_several_lengths(beside):
    """train_dreambooth_lora_krea2.py, whose texts are filled up in their middle and masked there."""
    side, timesteps = beside("krea2", targets="linear"), torch.tensor([120.5, 871.0])
    states, mask = side.pipeline.encode_prompt(list(TEXTS), device="cpu")
    assert len(set(mask.sum(1).tolist())) == 2 and len(side.reference) == 2 * (5 * 8 + 8)

    def predict(noisy, t):
        count, channels, height, width = noisy.shape
        packed = noisy.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        ids = Krea2Pipeline.prepare_position_ids(states.shape[1], height // 2, width // 2, "cpu")
        found = side.model(
            hidden_states=packed.reshape(count, (height // 2) * (width // 2), channels * 4), encoder_hidden_states=states, timestep=t / 1000,
            position_ids=ids, encoder_attention_mask=mask, return_dict=False,
        )[0]  # fmt: skip
        return found.view(count, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(noisy.shape)

    side.check(timesteps, flow_loss(side, predict, timesteps))


def test_qwen_image_with_texts_of_several_lengths(beside):
    """train_dreambooth_lora_qwen_image.py."""
    side, timesteps = beside("qwen_image", targets="mlp"), torch.tensor([120.5, 871.0])
    states, mask = side.pipeline.encode_prompt(list(TEXTS), device="cpu")
    assert len(set(mask.sum(1).tolist())) == 2 and len(side.reference) == 2 * 3 * 12

    def predict(noisy, t):
        count, channels, height, width = noisy.shape
        found = side.model(
            hidden_states=QwenImagePipeline._pack_latents(noisy, count, channels, height, width), encoder_hidden_states=states,
            encoder_hidden_states_mask=mask, timestep=t / 1000, img_shapes=[[(1, height // 2, width // 2)]] * count, return_dict=False,
        )[0]  # fmt: skip
        return QwenImagePipeline._unpack_latents(found, height * 8, width * 8, 8)[:, :, 0]

    side.check(timesteps, flow_loss(side, predict, timesteps))
    assert sum(p.grad is None for p in side.parameters) == 2 * 3  # of the last block, whose text goes nowhere


def test_anima_with_texts_of_several_lengths(beside):
    """AnimaLoopDenoiser's call; of no script of diffusers. All texts end in zeros, which are read."""
    side, timesteps = beside("anima", targets="linear"), torch.tensor([120.5, 871.0])
    blocks = side.pipeline
    said = AnimaTextEncoderStep.encode_prompt(blocks, list(TEXTS), prepare_unconditional_embeds=False)
    names = {"source_hidden_states": "qwen_prompt_embeds", "target_input_ids": "t5_input_ids", "target_attention_mask": "t5_attention_mask"}
    with torch.no_grad():
        given = {name: said[found] for name, found in names.items()}
        states = blocks.text_conditioner(**given, source_attention_mask=said["qwen_attention_mask"])
    assert states.shape == (2, 512, 32) and len(set(said["t5_attention_mask"].sum(1).tolist())) == 2
    assert len(side.reference) == 2 * 3 * (8 + 2 + 6)

    def predict(noisy, t):
        mask = torch.zeros(1, 1, noisy.shape[2] * 8, noisy.shape[3] * 8)
        return side.model(noisy.unsqueeze(2), t / 1000, states, padding_mask=mask, return_dict=False)[0][:, :, 0]

    side.check(timesteps, flow_loss(side, predict, timesteps))


@pytest.mark.parametrize("kind", ["logit_normal", "mode", "uniform"])
def test_flow_timesteps_follow_the_published_densities(load_tiny, kind):
    settings = Train(timestep_sampling=kind, logit_mean=0.3, logit_std=0.8, flow_shift=1.0)
    found = load_tiny("sd3", settings).process.draw_timesteps(torch.Size((500, 16, 8, 8)), torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(1)
    scheme = {"uniform": "none"}.get(kind, kind)
    wanted = compute_density_for_timestep_sampling(scheme, 500, logit_mean=0.3, logit_std=0.8, mode_scale=1.29, generator=generator)
    assert torch.allclose(found, wanted * 1000, atol=1e-3)


@pytest.mark.parametrize(("family", "largest"), [("flux1", 4096), ("krea2", 6400), ("qwen_image", 8192)])
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_a_shift_grows_with_the_picture_as_in_its_sampler(load_tiny, tokens, family, largest):
    noise = load_tiny(family).process
    side, most = 2 * int(tokens**0.5), 0.9 if family == "qwen_image" else 1.15
    sigma = torch.tensor([0.2, 0.7])
    shift = noise.shift(torch.Size((1, 16, side, side)))
    wanted = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).time_shift(
        calculate_shift(tokens, 256, largest, max_shift=most), 1.0, sigma
    )
    assert torch.allclose(shift * sigma / (1 + (shift - 1) * sigma), wanted)


def test_sd3_shift_is_its_scheduler_s_and_a_setting_replaces_it(load_tiny):
    shape = torch.Size((1, 16, 8, 8))
    assert load_tiny("sd3").process.shift(shape) == 3.0
    assert load_tiny("sd3", Train(flow_shift=1.5)).process.shift(shape) == 1.5
