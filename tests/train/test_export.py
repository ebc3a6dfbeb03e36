"""The LoRA file: names, alpha and metadata as the tools read them, and the same pictures in diffusers."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lorakit import open_project, pipeline
from lorakit.cli.train import command as train_command
from lorakit.errors import LorakitError
from lorakit.lora_file import formats
from lorakit.project import runs, stamps
from lorakit.train import checkpoint
from lorakit.train.export import check_file, export, make_metadata


@pytest.fixture(scope="module")
def run(trained):
    return runs.find(trained.folder, stamps.train(trained))


def read_metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def test_file_holds_192_modules_each_with_down_up_and_alpha(run):
    tensors = load_file(run.lora)
    stems = {key.split(".")[0] for key in tensors}
    assert len(stems) == 192 and len(tensors) == 3 * 192
    for stem in stems:
        down, up = tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"]
        assert tensors[f"{stem}.alpha"].item() == 4 and down.shape[0] == up.shape[1] == 4
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0" in stems
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj" in stems


def test_metadata_is_complete_and_true(trained, run):
    found = read_metadata(run.lora)
    assert all(isinstance(value, str) for value in found.values())
    assert found["ss_base_model_version"] == "sd_v1" and found["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert (found["ss_network_dim"], found["ss_network_alpha"], found["ss_steps"], found["ss_num_train_images"]) == ("4", "4.0", "4", "4")
    assert found["modelspec.trigger_phrase"] == "zwx mug" and "zwx mug" in found["modelspec.usage_hint"]
    assert json.loads(found["trained_words"]) == ["zwx mug"] and "begin at strength 0.7" in found["modelspec.usage_hint"]
    (tags,) = json.loads(found["ss_tag_frequency"]).values()
    assert tags["zwx mug"] == 4
    buckets = json.loads(found["ss_bucket_info"])["buckets"].values()
    assert sum(bucket["count"] for bucket in buckets) == 4
    for key in ("sai_model_spec", "implementation", "title", "resolution", "description", "date", "hash_sha256"):
        assert found[f"modelspec.{key}"]


def test_thumbnail_is_a_small_picture_of_the_first_sample(run):
    head, data = read_metadata(run.lora)["modelspec.thumbnail"].split(",")
    assert head == "data:image/jpeg;base64" and len(data) < 40_000
    small, drawn = Image.open(io.BytesIO(base64.b64decode(data))), Image.open(run.samples / "final" / "0_lora.png").convert("RGB")
    assert small.format == "JPEG" and max(small.size) <= 256
    grey = [np.asarray(image.resize(small.size).convert("L"), dtype=float).ravel() for image in (small, drawn)]
    assert np.corrcoef(*grey)[0, 1] > 0.9  # JPEG is hard on noise


def test_settings_in_the_metadata_are_those_of_the_training(trained, run, tiny_weights):
    found, settings = read_metadata(run.lora), trained.settings.train
    assert found["ss_sd_model_name"] == tiny_weights.name  # the weights that were given, by name alone
    assert found["ss_optimizer"] == settings.optimizer and float(found["ss_unet_lr"]) == settings.learning_rate
    assert found["ss_network_module"] == "networks.lora" and "ss_text_encoder_lr" not in found
    assert found["sshs_legacy_hash"] == found["sshs_model_hash"][:8] and found["modelspec.hash_sha256"] == f"0x{found['sshs_model_hash']}"


def test_lycoris_and_text_encoders_are_named_in_the_metadata(copy_of_trained, run):
    settings = {"train.adapter": "lokr", "train.lokr_factor": 4, "train.text_encoder": True, "train.text_encoder_rate": 5e-5}
    project = open_project(copy_of_trained.folder, settings=settings, device="cpu")
    found = make_metadata(project, run, load_file(run.lora), "x")
    assert found["ss_network_module"] == "lycoris.kohya" and found["ss_text_encoder_lr"] == "5e-05"
    assert json.loads(found["ss_network_args"]) == {"adapter": "lokr", "targets": "linear", "algo": "lokr", "factor": 4}


def test_no_metadata_means_none(copy_of_trained):
    done = CliRunner().invoke(train_command, [str(copy_of_trained.folder), "--no-metadata", "--until", "export", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    assert not read_metadata(runs.find(copy_of_trained.folder, stamps.train(copy_of_trained)).lora)


def test_hash_in_the_metadata_is_of_the_bytes_after_the_header(run):
    data = run.lora.read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert read_metadata(run.lora)["sshs_model_hash"] == hashlib.sha256(body).hexdigest()


def test_metadata_names_no_path_of_this_machine(trained, run):
    text = json.dumps(read_metadata(run.lora))
    assert str(trained.folder) not in text and str(trained.photos[0]) not in text
    assert not re.search(r'"(/|[A-Z]:\\\\)', text)


def draw_in_diffusers(weights, lora, prompt, seed):
    pipeline = StableDiffusionPipeline.from_pretrained(weights, safety_checker=None)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    if lora:
        pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
    options = {"num_inference_steps": 2, "guidance_scale": 7.0, "generator": torch.Generator().manual_seed(seed)}
    return pipeline(prompt, width=64, height=64, output_type="np", **options).images[0]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_diffusers_draws_the_same_pictures_with_the_exported_file(copy_of_trained, tiny_weights, precision):
    project = open_project(copy_of_trained.folder, settings={"export.precision": precision}, device="cpu")
    run = export(project)
    prompt = run.facts["result"]["prompts"][0]
    for lora, name in ((None, "base"), (run.lora, "lora")):
        found = draw_in_diffusers(tiny_weights, lora, prompt, seed=1234)
        ours = np.asarray(Image.open(run.samples / "final" / f"0_{name}.png"), dtype=np.float32) / 255
        assert np.abs(found - ours).max() <= 0.5 / 255 + 1e-3  # the PNG rounds to 1/255


def test_a_file_that_differs_from_the_training_is_an_error(copy_of_trained):
    run = runs.find(copy_of_trained.folder, stamps.train(copy_of_trained))
    network = formats.from_adapter(checkpoint.load_adapter(run, 4))
    tensors = load_file(run.lora)
    check_file(run.lora, network, "sd15")
    key = next(key for key in tensors if key.endswith("lora_up.weight"))
    save_file({**tensors, key: tensors[key] * 1.1}, run.lora)
    with pytest.raises(LorakitError, match="differs from the trained one"):
        check_file(run.lora, network, "sd15")
    stem = key.split(".")[0]
    save_file({name: value for name, value in tensors.items() if not name.startswith(stem)}, run.lora)
    with pytest.raises(LorakitError, match="1 layers are not as trained"):
        check_file(run.lora, network, "sd15")


def test_export_is_done_once_and_again_after_the_file_is_lost(copy_of_trained):
    run = export(copy_of_trained)
    before = load_file(run.lora)
    time = run.lora.stat().st_mtime_ns
    assert export(copy_of_trained).lora.stat().st_mtime_ns == time
    run.lora.unlink()
    after = load_file(export(copy_of_trained).lora)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lokr", pytest.param("loha", marks=pytest.mark.slow), pytest.param("dora", marks=pytest.mark.slow)])
def test_every_adapter_goes_the_whole_way_and_says_who_cannot_load_it(copy_of_trained, adapter, capsys):
    project = open_project(copy_of_trained.folder, settings={"train.adapter": adapter, "train.steps": 2, "sample.every": 0}, device="cpu")
    pipeline.walk(project, last="export")
    result = runs.find(project.folder, stamps.train(project)).facts["result"]
    assert result["modules"] == 192 and result["loaded"]["comfyui"] == result["loaded"]["a1111"] == result["loaded"]["forge"] > 192
    assert result["loaded"]["diffusers"] < result["loaded"]["comfyui"] and result["difference"] > 0
    assert "warning: diffusers" in "".join(capsys.readouterr())


def test_a_file_that_failed_its_check_never_has_the_final_name(copy_of_trained, monkeypatch):
    from lorakit.train import export as stage

    run = runs.find(copy_of_trained.folder, stamps.train(copy_of_trained))
    before = {path.name for path in run.folder.iterdir()} - {run.lora.name}
    run.lora.unlink()
    written = formats.write

    def wrong(*facts):  # as if the writer had a fault
        tensors = written(*facts)
        key = next(key for key in tensors if key.endswith("lora_up.weight"))
        return {**tensors, key: tensors[key] + 1}

    monkeypatch.setattr(stage.formats, "write", wrong)
    with pytest.raises(LorakitError, match=r"^[^/]*\.safetensors: layer .* differs from the trained one"):
        export(copy_of_trained)
    assert {path.name for path in run.folder.iterdir()} == before


def test_any_checkpoint_is_written_as_a_file_of_its_own(copy_of_trained):
    from lorakit.cli.export import command

    run = runs.find(copy_of_trained.folder, stamps.train(copy_of_trained))
    last = run.lora.read_bytes()
    done = CliRunner().invoke(command, [str(copy_of_trained.folder), "--step", "2", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    path = run.lora.with_name(f"{run.lora.stem}-step000002.safetensors")
    assert str(path) in done.output and run.lora.read_bytes() == last
    found, trained = formats.read(load_file(path), "sd15"), formats.from_adapter(checkpoint.load_adapter(run, 2))
    for name, layer in trained.items():
        assert (found[name].change() - layer.change()).norm() <= 1e-2 * layer.change().norm() + 1e-5
    assert read_metadata(path)["ss_steps"] == "2" and read_metadata(path)["modelspec.title"] == path.stem
    beside = {path.with_name(f"{path.stem}{end}") for end in (".json", ".comfyui.json", ".preview.png")}
    assert all(other.is_file() for other in beside)
    card, drawn = json.loads(path.with_suffix(".json").read_text()), Image.open(run.samples / "step_000002" / "0.png").convert("RGB")
    assert card["activation text"] == "zwx mug" and np.array_equal(Image.open(path.with_name(f"{path.stem}.preview.png")), drawn)
    assert str(copy_of_trained.folder) not in "".join(other.read_text() for other in beside if other.suffix == ".json")
    missing = CliRunner().invoke(command, [str(copy_of_trained.folder), "--step", "3", "--device", "cpu"])
    assert "no checkpoint of step 3 is kept; there are 2, 4" in str(missing.exception)


def test_a_layer_that_learned_almost_nothing_is_named_and_no_fault(tmp_path, capsys):
    from lorakit.train.export import check_file as check
    from lorakit.train.export import say_dead

    def adapter(dead):
        generator = torch.Generator().manual_seed(0)
        tensors = {}
        for number in range(4):
            name = f"unet.mid_block.attentions.0.transformer_blocks.0.attn{number % 2 + 1}.to_{'qk'[number // 2]}"
            scale = dead if number == 3 else 1e-2
            tensors[f"{name}.lora_A.weight"] = torch.randn(4, 32, generator=generator) * scale
            tensors[f"{name}.lora_B.weight"] = torch.randn(32, 4, generator=generator) * scale
            tensors[f"{name}.alpha"] = torch.tensor(4.0)
        return tensors

    network = formats.with_uniform_alpha(formats.from_adapter(adapter(2e-8)))  # smaller than what fp16 can tell from zero
    save_file(formats.write(network, "sd15", "kohya", torch.float16), tmp_path / "a.safetensors")
    check(tmp_path / "a.safetensors", network, "sd15")
    say_dead(network)
    assert "1 of 4 layers have learned (almost) nothing: " in capsys.readouterr().err
