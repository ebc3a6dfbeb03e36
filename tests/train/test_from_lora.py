"""A training that starts from a LoRA file: it predicts what the file does, and what does not fit is one line before anything starts."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from lorakit import open_project, pipeline
from lorakit.errors import LorakitError
from lorakit.lora_file import formats
from lorakit.project import runs
from lorakit.settings import Train
from lorakit.train import from_lora, lora
from lorakit.train.export import add_to_weights, read_metadata
from tests.train.test_adapters import glance, trained

FILES = [
    ("sd15", "kohya", {"rank": 4, "alpha": 2.0, "targets": "attention"}),
    ("flux1", "diffusers", {"rank": 4, "alpha": 8.0, "text_encoder": True}),
    ("sd15", "kohya", {"rank": 3, "adapter": "dora", "targets": "mlp"}),
    ("sd15", "kohya", {"rank": 2, "alpha": 1.0, "adapter": "lokr", "lokr_factor": 4}),
    ("flux1", "kohya", {"rank": 2, "block_ranks": ("single=3",)}),
    ("sd15", "kohya", {"rank": 2, "adapter": "loha", "targets": "conv", "text_encoder": True}),
]


def slow_after(count, entries):
    return [pytest.param(*entry, marks=pytest.mark.slow if n >= count else ()) for n, entry in enumerate(entries)]


def written(load_tiny, path, name, form, settings):
    network = trained(load_tiny(name, settings), settings)
    save_file(formats.write(network, name, form, torch.float32), path)
    return path


@pytest.mark.parametrize(("name", "form", "settings"), slow_after(2, FILES))
def test_the_first_prediction_is_that_of_the_file(load_tiny, tmp_path, name, form, settings):
    settings = Train(**{"targets": "linear", **settings})
    path = written(load_tiny, tmp_path / "start.safetensors", name, form, settings)
    decided = from_lora.settings_of(path, name)
    assert decided["train.adapter"] == settings.adapter and decided["train.text_encoder"] == settings.text_encoder
    taken = dataclasses.replace(Train(), **{key.removeprefix("train."): value for key, value in decided.items()})
    with_file, family = load_tiny(name, taken), load_tiny(name, taken)
    add_to_weights(from_lora.read(path, name), with_file)
    lora.add_lora(family, taken)
    assert not torch.allclose(glance(family), wanted := glance(with_file), rtol=1e-3)
    from_lora.put_in(family, taken)
    assert (glance(family) - wanted).norm() <= 1e-5 * wanted.norm()


def test_a_larger_rank_and_more_layers_predict_the_same_and_can_all_learn(load_tiny, tmp_path):
    path = written(load_tiny, tmp_path / "start.safetensors", "sd15", "kohya", Train(rank=2, alpha=3.0, targets="attention"))
    taken = Train(rank=6, alpha=2.0, targets="mlp", from_lora=str(path))
    with_file, family = load_tiny("sd15", taken), load_tiny("sd15", taken)
    add_to_weights(from_lora.read(path, "sd15"), with_file)
    lora.add_lora(family, taken)
    from_lora.put_in(family, taken)
    wanted = glance(with_file)
    assert (glance(family) - wanted).norm() <= 1e-5 * wanted.norm()
    rows = next(lora.tensors_of(layer)["lora_A.weight"] for name, layer in lora.adapted(family) if name.endswith("attn2.to_v"))
    assert rows.any(dim=1).all(), "rows of A that the file has not are not zero, else they could never learn"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"train.rank": 2}, "has rank 4 in the file and 2 here; --set train.rank=4, or `lorakit convert --rank 2`"),
        ({"train.adapter": "dora"}, "is lora and train.adapter = dora; --set train.adapter=lora"),
        ({"train.targets": "attention"}, "changes 64 layers that are not trained with train.targets = attention"),
        ({"train.init": "pissa"}, "take one of them out"),
        ({"train.from_lora": "gone.safetensors"}, "gone.safetensors: no such file"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_starts(copy_of_trained, settings, line):
    file = runs.all_runs(copy_of_trained.folder)[0].lora
    project = open_project(copy_of_trained.folder, settings={"train.from_lora": str(file), **settings}, device="cpu")
    with pytest.raises(LorakitError, match=line.replace("(", r"\(")) as error:
        pipeline.walk(project)
    assert "\n" not in str(error.value)


def test_a_file_of_another_base_is_refused(load_tiny, tmp_path):
    path = written(load_tiny, tmp_path / "start.safetensors", "flux1", "diffusers", Train(rank=2))
    with pytest.raises(LorakitError, match="is for flux1, and the base is of sd15"):
        from_lora.settings_of(path, "sd15")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:100])
    with pytest.raises(LorakitError, match="cannot be read as .safetensors"):
        from_lora.settings_of(tmp_path / "cut.safetensors", "sd15")


def test_layers_that_the_family_leaves_out_are_named(tmp_path):
    stem = "transformer.noise_refiner.0.attention.to_q"
    save_file(
        {f"{stem}.lora_A.weight": torch.ones(2, 3840), f"{stem}.lora_B.weight": torch.ones(3840, 2)}, tmp_path / "refiner.safetensors"
    )
    with pytest.raises(LorakitError, match="changes 1 layers that lorakit does not train, as transformer.noise_refiner.0.attention.to_q"):
        from_lora.settings_of(tmp_path / "refiner.safetensors", "z_image")


@pytest.mark.slow
def test_run_and_file_tell_where_they_started_and_the_file_may_go(copy_of_trained, tmp_path, capsys):
    from click.testing import CliRunner

    from lorakit.cli import group

    start = tmp_path / "begun with.safetensors"
    start.write_bytes(runs.all_runs(copy_of_trained.folder)[0].lora.read_bytes())
    words = ["train", str(copy_of_trained.folder), "--device", "cpu", "--from-lora", str(start)]
    done = CliRunner().invoke(group, [*words, "--set", "train.learning_rate=0.002", "--set", "train.steps=2", "--set", "sample.every=0"])
    assert done.exit_code == 0, done.output
    assert (
        "start     begun with.safetensors: lora of rank 4, linear" in done.output
        and "starts from begun with.safetensors, 192 layers" in done.output
    )
    run = runs.all_runs(copy_of_trained.folder)[-1]
    told = read_metadata(run.lora)
    assert run.facts["from_lora"]["file"] == told["lorakit_from_lora"] == start.name
    assert run.facts["from_lora"]["hash"] == told["lorakit_from_lora_hash"] and len(told["lorakit_from_lora_hash"]) == 64
    start.unlink()
    assert pipeline.is_run_done(open_project(copy_of_trained.folder), "export")
