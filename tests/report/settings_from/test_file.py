"""Settings of other trainers mean the same here; whatever has no like is named, and a file of another kind is one line."""

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import save_file

from lorakit.cli.run import command as run
from lorakit.errors import LorakitError
from lorakit.project import catalog, open_project
from lorakit.report.settings_from.file import take

TOML = """
[model]
pretrained_model_name_or_path = "/home/anna/models/sd_xl_base_1.0.safetensors"
[network]
network_module = "networks.lora"
network_dim = 16
network_args = ["conv_dim=8", "conv_alpha=4", "rank_dropout=0.1"]
[training]
dataset_config = "D:/old/dataset.toml"
max_train_epochs = 10
learning_rate = 1e-4
unet_lr = 2e-4
text_encoder_lr = 5e-5
optimizer_type = "Prodigy"
optimizer_args = ["weight_decay=0.05", "d_coef=2"]
lr_scheduler = "cosine_with_restarts"
lr_scheduler_num_cycles = 3
min_snr_gamma = 5
noise_offset = 0.0357
multires_noise_iterations = 6
clip_skip = 2
scale_weight_norms = 1.0
mixed_precision = "bf16"
gradient_checkpointing = true
output_dir = "out"
xformers = true
save_every_n_epochs = 1
brand_new_option = 7
"""
DATASET = """
[general]
shuffle_caption = true
keep_tokens = 2
caption_dropout_rate = 0.1
[[datasets]]
resolution = [1024, 1024]
batch_size = 2
  [[datasets.subsets]]
  image_dir = "a"
  num_repeats = 4
  flip_aug = true
[[datasets]]
resolution = 768
batch_size = 2
  [[datasets.subsets]]
  image_dir = "a"
  num_repeats = 4
  flip_aug = true
"""


@pytest.fixture
def write(tmp_path):
    def make(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return make


def named(found, *words):
    """Whether each of the words stands where what has no like is named."""
    return [word for word in words if not any(word in line for line in found.lacking)]


def test_sd_scripts_and_the_dataset_beside_it(write):
    write("dataset.toml", DATASET)
    found = take(write("train.toml", TOML))
    its = found.settings
    assert found.card.name == "sdxl" and found.origin == "from train.toml" and "train.weights" not in its
    assert (its["train.rank"], its["train.alpha"], its["train.targets"]) == (16, 1.0, "conv")  # alpha is 1 there where none is given
    assert its["train.block_ranks"] == ("(conv1|conv2|conv_shortcut|samplers.0.conv)$=8/4",)
    assert (its["train.learning_rate"], its["train.text_encoder"], its["train.text_encoder_rate"]) == (2e-4, True, 5e-5)
    assert (its["train.optimizer"], its["train.weight_decay"], its["train.lr_schedule"]) == ("prodigy", 0.05, "cosine")
    assert (its["train.loss_weighting"], its["train.min_snr_gamma"], its["train.noise_offset"]) == ("min_snr", 5.0, 0.0357)
    assert its["train.multires_noise"] == 0.3 and its["train.precision"] == "bf16" and its["train.gradient_checkpointing"] == "on"
    assert (its["train.resolution"], its["train.other_resolutions"], its["train.batch_size"]) == (1024, (768,), 2)
    assert (its["train.shuffle_tags"], its["train.keep_tags"], its["train.caption_dropout"]) == (True, 2, 0.1)
    assert (its["train.steps"], its["train.steps_per_photo"], its["train.min_steps"]) == (None, 20, 1)  # 10 epochs x 4 repeats / 2
    lost = named(found, "rank_dropout", "d_coef", "cosine_with_restarts", "clip_skip = 2", "scale_weight_norms", "save_every_n_epochs",
                 "brand_new_option = 7", "flip_aug")  # fmt: skip
    assert not lost, (lost, found.lacking)
    assert {"output_dir", "xformers"} <= set(found.left)


def test_every_option_is_in_one_of_the_lines(write):
    """What is in force is taken over, has no like, or is left: nothing is dropped in silence."""
    write("dataset.toml", DATASET)
    text = " ".join(take(write("train.toml", TOML)).lines())
    silent = {"network_module", "lr_scheduler_num_cycles", "dataset_config"}  # said by what they lead to
    ours = {
        "network_dim": "train.rank", "max_train_epochs": "steps_per_photo", "learning_rate": "train.learning_rate", "unet_lr": "train.learning_rate",
        "text_encoder_lr": "train.text_encoder_rate", "optimizer_type": "train.optimizer", "optimizer_args": "weight_decay", "network_args": "block_ranks",
        "lr_scheduler": "lr_schedule", "mixed_precision": "train.precision", "multires_noise_iterations": "train.multires_noise",
        "pretrained_model_name_or_path": "base sdxl",
    }  # fmt: skip
    options = [line.partition(" = ")[0] for line in TOML.splitlines() if " = " in line]
    assert [name for name in options if ours.get(name, name) not in text and name not in silent] == []


def test_a_dataset_alone_says_nothing_of_the_training(write):
    found = take(write("dataset.toml", DATASET))
    assert found.settings["train.resolution"] == 1024 and found.settings["train.batch_size"] == 2
    assert not {"train.rank", "train.optimizer", "train.steps"} & set(found.settings)


def test_the_window_of_kohya(write, tmp_path):
    for name, pictures in (("10_zwx mug", 3), ("2_zwx mug", 1)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(pictures):
            (tmp_path / "photos" / name / f"{number}.png").touch()
    values = {
        "LoRA_type": "LyCORIS/LoKr", "LyCORIS_preset": "attn-mlp", "factor": 8, "conv_dim": 1, "network_dim": 32, "network_alpha": 16, "max_resolution": "768,768",
        "epoch": 4, "max_train_steps": 0, "train_batch_size": 2, "learning_rate": 0.0001, "unet_lr": 0.0002, "text_encoder_lr": 0, "optimizer": "AdamW8bit",
        "optimizer_args": "weight_decay=0.1 betas=0.9,0.99", "lr_scheduler": "constant", "lr_warmup": 10, "noise_offset_type": "Original", "noise_offset": 0.05,
        "multires_noise_iterations": 8, "multires_noise_discount": 0.2, "sample_prompts": "a zwx mug --w 512\n# no\nbad --q 1", "sample_every_n_steps": 100,
        "sdxl": False, "v2": False, "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5", "train_data_dir": "photos", "clip_skip": 2, "wandb_api_key": "hush", "guidance_scale": 3,
        "additional_parameters": "--ip_noise_gamma=0.1 --odd_one", "xformers": "xformers", "logging_dir": "", "vae": "", "flux1_t5xxl": "", "network_dropout": 0,
    }  # fmt: skip
    found = take(write("kohya_ss.json", values))
    its = found.settings
    assert (
        found.card.name == "sd15" and found.trainer == "kohya_ss" and "hush" not in " ".join(found.lines()) and "train.guidance" not in its
    )
    assert (its["train.adapter"], its["train.lokr_factor"], its["train.rank"], its["train.alpha"]) == ("lokr", 8, 32, 16.0)
    assert "train.targets" not in its and "train.block_ranks" not in its
    assert (its["train.learning_rate"], its["train.text_encoder"], its["train.optimizer"]) == (2e-4, False, "adamw8bit")
    assert (its["train.noise_offset"], its["train.multires_noise"], its["train.input_perturbation"]) == (0.05, 0.0, 0.1)
    assert its["train.steps_per_photo"] == 16 and its["sample.prompts"] == ("a zwx mug --w 512",) and its["train.resolution"] == 768
    assert not named(found, "lr_warmup_steps", "betas", "odd_one", "clip_skip", "--q")
    assert not any(word in " ".join(found.lacking) for word in ("flux1", "vae", "network_dropout", "multires"))
    flux = take(
        write(
            "flux.json", {**values, "LoRA_type": "Flux1", "flux1_checkbox": True, "pretrained_model_name_or_path": "", "guidance_scale": ""}
        )
    )
    assert flux.card.family == "flux1" and flux.settings["train.guidance"] == 3.5 and flux.settings["train.adapter"] == "lora"


def test_ai_toolkit(write):
    process = {
        "type": "sd_trainer", "trigger_word": "zwx", "network": {"type": "lora", "linear": 16, "linear_alpha": 8}, "save": {"save_every": 250, "dtype": "float16"},
        "datasets": [{"folder_path": "a", "resolution": [512, 768, 1024], "caption_dropout_rate": 0.1, "flip_x": True}],
        "train": {"batch_size": 1, "steps": 2000, "lr": 1e-4, "optimizer": "adamw8bit", "noise_scheduler": "flowmatch", "dtype": "bf16", "train_text_encoder": False,
                  "timestep_type": "linear", "ema_config": {"use_ema": True, "ema_decay": 0.99}, "content_or_style": "balanced"},
        "model": {"name_or_path": "black-forest-labs/FLUX.1-dev", "is_flux": True, "quantize": True}, "sample": {"sample_every": 250, "prompts": ["a [trigger] mug"]},
    }  # fmt: skip
    found = take(write("job.yaml", yaml.safe_dump({"job": "extension", "config": {"name": "x", "process": [process]}})))
    its = found.settings
    assert found.card.name == "flux1-dev" and its["trigger.word"] == "zwx" and its["train.base_precision"] == "fp8"
    assert (its["train.rank"], its["train.alpha"], its["train.resolution"], its["train.other_resolutions"]) == (16, 8.0, 1024, (512, 768))
    assert (its["train.ema"], its["train.timestep_sampling"], its["train.lr_schedule"], its["train.steps"]) == (
        0.99,
        "uniform",
        "constant",
        2000,
    )
    assert its["sample.prompts"] == ("a [trigger] mug",) and not named(found, "flip_x", "content_or_style")
    found.fit_to_another(catalog.card("sdxl"))  # as --base sdxl does
    assert "train.timestep_sampling" not in its and not named(
        found, "its base, FLUX.1 dev", "train.timestep_sampling = uniform (for the other base)"
    )


@pytest.mark.parametrize(
    ("name", "card", "weights"),
    [
        ("D:/models/ponyDiffusionV6XL_v6StartWithThisOne.safetensors", "pony", None),
        ("/home/anna/illustriousXL_v01.safetensors", "illustrious", None),
        ("OnomaAIResearch/Illustrious-XL-v2.0", "illustrious", "hf://OnomaAIResearch/Illustrious-XL-v2.0"),
        ("noobaiXLNAIXL_vPred10Version.safetensors", "noobai", None),
        ("noobaiXLNAIXL_epsilonPred11Version.safetensors", None, None),  # which predicts noise: SDXL, if that is told
        ("black-forest-labs/FLUX.2-dev", "flux2-dev", None),
        ("flux2_dev_fp8mixed.safetensors", "flux2-dev", None),
        ("black-forest-labs/FLUX.2-klein-9B", "flux2-klein-9b", "hf://black-forest-labs/FLUX.2-klein-9B"),
        ("z_image_turbo_bf16.safetensors", "z-image-turbo", None),
        ("ostris/Z-Image-De-Turbo", "z-image", "hf://ostris/Z-Image-De-Turbo"),
        ("qwen_image_2512_fp8_e4m3fn.safetensors", "qwen-image-2512", None),
        ("Qwen/Qwen-Image-Edit-2509", None, None),
        ("krea2_turbo_fp8_scaled.safetensors", "krea2-turbo", None),
        ("lodestones/Chroma1-Base", "chroma", "hf://lodestones/Chroma1-Base"),
        ("chroma-unlocked-v48-detail-calibrated.safetensors", "chroma", None),
        ("animagine-xl-4.0.safetensors", None, None),
    ],
)
def test_a_base_is_told_by_the_name_of_its_weights(write, name, card, weights):
    found = take(write("any.toml", f'network_dim = 16\nlearning_rate = 1e-4\npretrained_model_name_or_path = "{name}"'))
    assert (found.card.name if found.card else None) == card
    if weights or card:
        assert found.settings.get("train.weights") == weights
    sdxl = take(write("sdxl.json", {"LoRA_type": "Standard", "sdxl": True, "network_dim": 4, "epoch": 1, "max_train_steps": 9, "learning_rate": 1e-4, "unet_lr": 1e-4, "text_encoder_lr": 0, "pretrained_model_name_or_path": name, "train_data_dir": "", "optimizer": "AdamW"}))  # fmt: skip
    assert sdxl.card.name == (card if card in ("pony", "illustrious", "noobai") else "sdxl")


def test_chroma_is_told_from_flux1_in_their_script(write):
    lines = [
        'network_module = "networks.lora_flux"',
        "network_dim = 16",
        "learning_rate = 1e-4",
        'pretrained_model_name_or_path = "x.safetensors"',
    ]
    assert take(write("flux.toml", "\n".join(lines))).card.family == "flux1"
    found = take(write("chroma.toml", "\n".join([*lines, 'model_type = "chroma"', "guidance_scale = 0.0", "apply_t5_attn_mask = true"])))
    assert found.card.name == "chroma" and not any("model_type" in line or "apply_t5" in line for line in found.lacking)
    script = "accelerate launch flux_train_network.py --network_dim 16 --learning_rate 1e-4 --model_type {}"
    assert [take(write(f"{kind}.sh", script.format(kind))).card.family for kind in ("flux", "chroma")] == ["flux1", "chroma1"]


@pytest.mark.parametrize(("arch", "card"), [("flux2", "flux2-dev"), ("flux2_klein_9b", "flux2-klein-9b"), ("chroma", "chroma"), ("zimage", "z-image"), ("krea2", "krea2"), ("qwen_image", "qwen-image")])  # fmt: skip
def test_ai_toolkit_s_newer_bases(write, arch, card):
    process = {"type": "sd_trainer", "network": {"type": "lora", "linear": 16}, "train": {"steps": 10, "lr": 1e-4}, "model": {"arch": arch}}
    assert take(write("job.yaml", yaml.safe_dump({"job": "extension", "config": {"name": "x", "process": [process]}}))).card.name == card


ONETRAINER = {  # as its presets are laid out
    "base_model_name": "lodestones/Chroma1-HD", "batch_size": 2, "learning_rate": 3e-4, "model_type": "CHROMA_1", "resolution": "512,768",
    "transformer": {"train": True, "weight_dtype": "FLOAT_8"}, "text_encoder": {"train": False, "dropout_probability": 0.1}, "training_method": "LORA",
    "train_dtype": "BFLOAT_16", "timestep_distribution": "LOGIT_NORMAL", "noising_weight": 0.5, "noising_bias": 0.2, "timestep_shift": 1.8,
    "layer_filter_preset": "attn-mlp", "optimizer": {"optimizer": "ADAMW_8BIT", "weight_decay": 0.05}, "lora_rank": 32, "lora_alpha": 16.0,
    "epochs": 40, "learning_rate_warmup_steps": 100, "secrets": {"huggingface_token": "hush"}, "workspace_dir": "w", "min_noising_strength": 0.1,
}  # fmt: skip


def test_onetrainer(write):
    found = take(write("preset.json", ONETRAINER))
    its = found.settings
    assert (
        found.trainer == "OneTrainer"
        and found.card.name == "chroma"
        and "train.weights" not in its
        and "hush" not in " ".join(found.lines())
    )
    assert (its["train.rank"], its["train.alpha"], its["train.optimizer"], its["train.weight_decay"]) == (32, 16.0, "adamw8bit", 0.05)
    assert (its["train.resolution"], its["train.other_resolutions"], its["train.base_precision"]) == (768, (512,), "fp8")
    assert (its["train.timestep_sampling"], its["train.logit_mean"], its["train.logit_std"], its["train.flow_shift"]) == (
        "logit_normal",
        0.2,
        1.5,
        1.8,
    )
    assert (its["train.steps_per_photo"], its["train.warmup_steps"], its["train.caption_dropout"]) == (20, 100, 0.1)
    assert not named(found, "layer_filter_preset", "min_noising_strength") and "workspace_dir" in found.left
    plain = take(write("plain.json", {key: ONETRAINER[key] for key in ("model_type", "base_model_name", "training_method")}))
    assert "train.precision" not in plain.settings and plain.settings["train.alpha"] == 1.0  # its own default
    for kind, name, card in (
        ("FLUX_2", "black-forest-labs/FLUX.2-dev", "flux2-dev"), ("FLUX_2", "black-forest-labs/FLUX.2-klein-base-9B", "flux2-klein-9b"),
        ("Z_IMAGE", "Tongyi-MAI/Z-Image-Turbo", "z-image-turbo"), ("STABLE_DIFFUSION_XL_10_BASE", "D:/ponyDiffusionV6XL.safetensors", "pony"),
        ("KREA_2", "", "krea2"), ("QWEN", "Qwen/Qwen-Image", "qwen-image"), ("WUERSTCHEN_2", "x", None),
    ):  # fmt: skip
        other = take(write("other.json", {**ONETRAINER, "model_type": kind, "base_model_name": name}))
        assert (other.card.name if other.card else None) == card


def test_a_lora_of_sd_scripts(tmp_path):
    header = {
        "ss_network_dim": "8", "ss_network_alpha": "4.0", "ss_network_module": "networks.lora", "ss_learning_rate": "0.0001", "ss_unet_lr": "0.0003",
        "ss_text_encoder_lr": "None", "ss_max_train_steps": "1500", "ss_num_epochs": "10", "ss_lr_scheduler": "cosine", "ss_clip_skip": "2", "ss_seed": "7",
        "ss_optimizer": "bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.2)", "ss_base_model_version": "sdxl_base_v1-0", "ss_sd_model_name": "mine.safetensors",
        "ss_mixed_precision": "fp16", "ss_min_snr_gamma": "None", "ss_training_comment": "x", "ss_tag_frequency": "{}", "ss_noise_offset": "None",
        "ss_datasets": json.dumps([{"batch_size_per_device": 3, "resolution": [832, 1216], "tag_frequency": {}, "subsets": [{"num_repeats": 5, "img_count": 9,
                                    "shuffle_caption": True, "keep_tokens": 1}]}]),
    }  # fmt: skip
    save_file({"lora_unet_x.lora_down.weight": np.zeros((8, 4), np.float16)}, tmp_path / "a.safetensors", metadata=header)
    found = take(tmp_path / "a.safetensors")
    its = found.settings
    assert (found.card.name, its["train.rank"], its["train.alpha"], its["train.learning_rate"]) == ("sdxl", 8, 4.0, 3e-4)
    assert (its["train.optimizer"], its["train.weight_decay"], its["train.text_encoder"], its["train.seed"]) == ("adamw8bit", 0.2, False, 7)
    assert (its["train.steps"], its["train.batch_size"], its["train.resolution"], its["train.shuffle_tags"]) == (1500, 3, 1006, True)
    assert not named(found, "mine.safetensors", "clip_skip", "resolution")


def test_a_lora_of_lorakit_gives_its_own_settings(trained):
    (lora,) = trained.folder.glob("runs/*/*.safetensors")
    found = take(lora)
    resolved = trained.settings.flat()
    same = {"train.rank", "train.alpha", "train.adapter", "train.targets", "train.learning_rate", "train.steps", "train.optimizer", "train.lr_schedule",
            "train.batch_size", "train.resolution", "train.seed", "train.text_encoder", "train.caption_dropout", "train.noise_offset"}  # fmt: skip
    assert {key: found.settings[key] for key in same} == {key: resolved[key] for key in same}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("other.toml", "[tool]\nname = 1", "no settings of a trainer that lorakit knows"),
        ("broken.toml", "a = = 1", "not valid TOML"),
        ("broken.json", "{", "not valid JSON"),
        ("list.json", "[1]", "no table of settings"),
        ("code.yaml", "!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("notes.txt", "hello", "is no settings file"),
        ("run.sh", "echo hello", "starts no training script"),
        ("run.sh", "python evil.py --a=1", "starts evil.py"),
        ("x.safetensors", "no", "cannot be read"),
        ("x.pt", "no", "pickled"),
    ],
)
def test_what_is_none_of_these_is_one_line(write, name, content, why):
    with pytest.raises(LorakitError, match=why) as error:
        take(write(name, content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("odd", [[], {"a": 1}, "1e999", ["a=b", None]])
def test_values_of_a_wrong_kind_are_named_and_stop_nothing(write, odd):
    names = ("network_dim", "network_alpha", "network_args", "optimizer_args", "optimizer_type", "lr_scheduler", "lr_warmup_steps", "resolution", "datasets", "general",
             "sample_prompts", "network_weights", "loss_type", "seed", "max_train_epochs", "timestep_sampling", "save_precision", "dataset_config")  # fmt: skip
    for name in names:
        found = take(
            write(
                "odd.json", {"pretrained_model_name_or_path": "x", "learning_rate": 1e-4, "max_train_steps": 5, "unet_lr": 1e-4, name: odd}
            )
        )
        assert found.settings["train.learning_rate"] == 1e-4 and "\n" not in "".join(found.lines())


AI_TOOLKIT = {
    "network": {"type": "lora", "linear": 16, "linear_alpha": 8, "conv": 4, "lokr_factor": 4}, "save": {"save_every": 250, "dtype": "float16"}, "trigger_word": "zwx",
    "datasets": [{"folder_path": "a", "resolution": [512, 768], "caption_dropout_rate": 0.1, "num_repeats": 2, "is_reg": False, "mask_path": "m"}], "training_seed": 5,
    "train": {"batch_size": 1, "steps": 2000, "lr": 1e-4, "optimizer": "adamw8bit", "noise_scheduler": "flowmatch", "dtype": "bf16", "train_text_encoder": False,
              "timestep_type": "linear", "ema_config": {"use_ema": True}, "optimizer_params": {"weight_decay": 0.1}, "lr_scheduler": "linear", "lr_scheduler_params": {"a": 1}},
    "model": {"name_or_path": "x/FLUX.1-dev", "arch": "flux", "quantize": True, "qtype": "qfloat8"}, "sample": {"sample_every": 250, "prompts": ["a"]},
}  # fmt: skip
SD_SCRIPTS = {"pretrained_model_name_or_path": "x", "learning_rate": 1e-4, "max_train_steps": 5, "unet_lr": 1e-4, "network_module": "networks.lora", "lr_warmup_steps": 0.1, "train_batch_size": 2,
              "lr_scheduler": "cosine", "min_snr_gamma": 5, "network_args": ["a=1"], "model_type": "chroma", "gradient_checkpointing": True, "mixed_precision": "bf16"}  # fmt: skip
WINDOW = {
    **{key: value for key, value in SD_SCRIPTS.items() if not key.startswith("network_")},  # which follow from LoRA_type
    "optimizer": "AdamW",
    "LoRA_type": "Standard",
    "epoch": 5,
    "sample_prompts": "a",
    "additional_parameters": "--a=1",
    "noise_offset": 0.1,
    "train_data_dir": "x",
    "lr_warmup": 5,
    "conv_dim": 4,
}


def _named_by(take_one, values: dict, path: tuple, odd) -> bool:
    """Whether the lines of a file, whose value at `path` is `odd`, name that key."""
    changed = inner = json.loads(json.dumps(values))
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    said = take_one(changed).lines()
    assert not any("\n" in line for line in said)
    return any(str(path[-1]) in line for line in said if "no counterpart" in line)


@pytest.mark.parametrize("odd", [{"a": 1}, [{"a": 1}], [[5]], "x y", 5, True, {1: 2}, 10**400, "1e999"], ids=str)
def test_every_value_of_another_kind_is_named_by_its_key_whatever_the_form(write, odd):
    forms = {
        "ai.json": (AI_TOOLKIT, lambda one: {"job": "extension", "config": {"process": [one]}}), "onetrainer.json": (ONETRAINER, dict), "sd.json": (SD_SCRIPTS, dict),
        "window.json": (WINDOW, dict),
    }  # fmt: skip
    for name, (values, whole) in forms.items():
        paths = [(key,) for key in values] + [(key, inner) for key, value in values.items() if isinstance(value, dict) for inner in value]
        paths = [path for path in paths if path != ("train",)]  # which marks the form
        paths += [("datasets", 0, key) for key in AI_TOOLKIT["datasets"][0]] if name == "ai.json" else []
        silent = [
            path for path in paths if not _named_by(lambda one, name=name, whole=whole: take(write(name, whole(one))), values, path, odd)
        ]
        if odd == {"a": 1}:
            tables = {"ema_config", "lr_scheduler_params", "optimizer_params", "transformer", "text_encoder", "optimizer"}
            never = {
                "secrets",
                "huggingface_token",
                "workspace_dir",
                "folder_path",
                "num_repeats",
                "is_reg",
                "mask_path",
                "train",
                "trigger_word",
                "LoRA_type",
            }
            assert {path[-1] for path in silent} <= never | tables, (name, silent)


def test_a_base_of_another_purpose_is_named_and_not_taken(write):
    fill = "black-forest-labs/FLUX.1-Fill-dev"
    for kind, name in (
        ("FLUX_FILL_DEV_1", fill),
        ("FLUX_DEV_1", fill),
        ("STABLE_DIFFUSION_15_INPAINTING", "sd-legacy/stable-diffusion-inpainting"),
    ):
        found = take(write("preset.json", {**ONETRAINER, "model_type": kind, "base_model_name": name}))
        assert not named(found, "for inpainting") and "train.weights" not in found.settings, found.lines()
    assert take(write("flux.json", {**ONETRAINER, "model_type": "FLUX_DEV_1", "base_model_name": ""})).card.name == "flux1-dev"
    found = take(
        write(
            "a.toml",
            f'network_dim = 16\nlearning_rate = 1e-4\nnetwork_module = "networks.lora_flux"\npretrained_model_name_or_path = "{fill}"',
        )
    )
    assert not named(found, "for inpainting") and "train.weights" not in found.settings
    odd = take(
        write("odd.json", {**ONETRAINER, "model_type": {"a": 1}, "lora_rank": "many", "masked_training": "perhaps", "optimizer": "ADAMW"})
    )
    assert not named(
        odd,
        "model_type = {'a': 1} (no text)",
        "lora_rank = many (no number)",
        "masked_training = perhaps (neither true nor false)",
        "optimizer = ADAMW (no table)",
    )
    assert not any("None" in line for line in odd.lacking)


@pytest.mark.parametrize("name", ["", "project.yaml", "runs/2026/settings.yaml"])
@pytest.mark.parametrize("words", ["base: tiny-random\nsettings: {train.rank: 3}\n", "photos: [\n"])
def test_a_project_of_ours_is_called_so_with_what_to_give_instead(tmp_path, name, words):
    (tmp_path / "runs" / "2026").mkdir(parents=True)
    for file in ("project.yaml", "runs/2026/settings.yaml"):
        (tmp_path / file).write_text(words)
    with pytest.raises(LorakitError, match=r"of a lorakit project.*runs/\*/\*\.safetensors.*under settings: in "):
        take(tmp_path / name)


def test_a_plain_header_points_to_from_lora(tmp_path):
    save_file({"x": np.zeros(1, np.float32)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    with pytest.raises(LorakitError, match="--from-lora"):
        take(tmp_path / "a.safetensors")


def test_the_command_goes_before_the_file_and_both_before_the_project(write, photo_folder, tmp_path):
    file = write(
        "train.toml",
        'network_dim = 16\nnetwork_alpha = 16\nlearning_rate = 2e-4\nmax_train_steps = 99\nclip_skip = 2\nnoise_offset = 9\nseed = "x"',
    )
    words = [str(photo_folder), "-o", str(tmp_path / "p"), "--base", "tiny-random", "--trigger", "zwx", "--set"]
    words += ["train.steps=7", "--set", "trigger.word=zwx", "--settings-from", str(file), "--until", "scan"]
    done = CliRunner().invoke(run, words)
    assert done.exit_code == 0, (done.output, done.exception)
    assert (
        "train.rank=16" in done.output
        and "clip_skip = 2" in done.output
        and "too large" in done.output
        and "seed = x (no number)" in done.output
    )
    assert "go before: train.steps=7" in done.output
    project = open_project(tmp_path / "p")
    assert (project.settings.train.rank, project.settings.train.steps, project.settings.train.learning_rate) == (16, 7, 2e-4)
    again = open_project(tmp_path / "p", settings={"train.steps": 8}, taken_over=("from b.toml", {"train.rank": 4, "train.steps": 5}))
    assert (again.settings.train.rank, again.settings.train.steps) == (4, 8)
    assert again.settings.origin["train.rank"] == "from b.toml" and again.settings.origin["train.steps"] == "command line"
    assert open_project(tmp_path / "p").settings.train.rank == 16  # opening wrote nothing
