"""Flipped bytes and torn files: found, said in one line, and made again or passed over for what is older."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load, save_file

from lorakit import open_project, pipeline
from lorakit.errors import LorakitError
from lorakit.project import runs, stamps
from lorakit.train import cache as caching
from lorakit.train import checkpoint, tensor_file
from lorakit.train.cache import cache, latents_path, load_latents, text_path
from lorakit.train.tensor_file import Damaged


def load_file(path):
    return load(path.read_bytes())  # not mapped: the files are cut short here


def flip(path, at=-20):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


DAMAGES = [flip, truncate, empty]


@pytest.fixture
def run(copy_of_trained):
    return runs.find(copy_of_trained.folder, stamps.train(copy_of_trained))


def again(project):
    """The project as the next command opens it, with nothing in memory."""
    caching._load.cache.clear()
    return open_project(project.folder, device="cpu")


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_a_file_of_tensors_is_found(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    tensors = {"half": torch.ones(3, dtype=torch.bfloat16), "scalar": torch.tensor(2.0), "none": torch.ones(0, 4)}
    tensor_file.write(path, tensors, {"step": "3"})
    assert all(torch.equal(tensors[name], tensor) for name, tensor in tensor_file.read(path).items())
    damage(path)
    with pytest.raises(Damaged, match="a.safetensors"):
        tensor_file.read(path)


def test_a_file_without_a_checksum_is_taken_as_it_is(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "old.safetensors")
    assert torch.equal(tensor_file.read(tmp_path / "old.safetensors")["a"], torch.ones(2))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_entry_is_encoded_again(copy_of_trained, damage, capsys):
    project = copy_of_trained
    record = project.manifest.selected[0]
    for path in (latents_path(project, record), text_path(project, record["text"]), text_path(project, "")):
        cache(project)  # with sums that are known to be whole
        before = load_file(path)
        damage(path)
        cache(again(project))
        assert f"cache/{path.parent.name}: {path.name}" in capsys.readouterr().err
        assert all(torch.equal(before[name], tensor) for name, tensor in load_file(path).items())


def test_a_cache_entry_that_breaks_while_it_is_in_use_is_named(copy_of_trained):
    record = copy_of_trained.manifest.selected[0]
    caching._load.cache.clear()
    flip(latents_path(copy_of_trained, record))
    with pytest.raises(LorakitError, match="checksum is another.*encodes it again"):
        load_latents(copy_of_trained, record)


def test_embeddings_in_memory_are_bounded_in_bytes(copy_of_trained, monkeypatch):
    assert caching._load.cache.maxsize == caching.IN_MEMORY and caching._load.cache.getsizeof({"a": torch.ones(10)}) == 40


@pytest.mark.parametrize("name", [checkpoint.ADAPTER, checkpoint.STATE, checkpoint.SUMS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_a_checkpoint_is_found(run, name, damage):
    assert checkpoint.load_adapter(run, 4) and checkpoint.load_state(run, 4)
    damage(checkpoint.folder_of(run, 4) / name)
    with pytest.raises(Damaged):  # whoever goes on reads both
        checkpoint.load_adapter(run, 4)
        checkpoint.load_state(run, 4)


@pytest.mark.parametrize(("name", "damage"), [(checkpoint.ADAPTER, flip), (checkpoint.STATE, truncate), (checkpoint.SUMS, empty)])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(copy_of_trained, run, name, damage, capsys):
    from lorakit.train.train import train

    wanted = checkpoint.load_adapter(run, 4)
    damage(checkpoint.folder_of(run, 4) / name)
    run.reopen()
    found = train(again(copy_of_trained))
    assert "checkpoint of step 4 is damaged" in (said := capsys.readouterr().err) and "goes on after step 2" in said
    assert all(torch.equal(wanted[key], tensor) for key, tensor in checkpoint.load_adapter(found, 4).items())
    assert checkpoint.all_steps(found) == [2, 4] and (run.checkpoints / "damaged_step_000004").is_dir()


def test_checkpoints_without_sums_still_load(run):
    (checkpoint.folder_of(run, 4) / checkpoint.SUMS).unlink()
    assert checkpoint.load_adapter(run, 4) and checkpoint.load_state(run, 4)["optimizer"]
    empty(checkpoint.folder_of(run, 4) / checkpoint.STATE)
    with pytest.raises(Damaged, match="optimizer.pt cannot be read"):
        checkpoint.load_state(run, 4)


def test_a_last_checkpoint_that_is_damaged_is_trained_again_before_export(copy_of_trained, run, capsys):
    wanted = load_file(run.lora)
    run.lora.unlink()
    flip(checkpoint.folder_of(run, 4) / checkpoint.ADAPTER)
    pipeline.walk(again(copy_of_trained), "export", "export")
    assert "last checkpoint is damaged" in capsys.readouterr().err
    found = load_file(runs.find(copy_of_trained.folder, stamps.train(copy_of_trained)).lora)
    assert all(torch.equal(wanted[key], tensor) for key, tensor in found.items())


def test_a_damaged_lora_is_written_again(copy_of_trained, run, capsys):
    wanted = run.lora.read_bytes()
    flip(run.lora)
    pipeline.walk(again(copy_of_trained), "export", "export")
    assert "has changed since it was written" in capsys.readouterr().err
    assert load_file(run.lora).keys() and run.lora.read_bytes()[-1000:] == wanted[-1000:]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, empty])
def test_a_torn_run_json_costs_no_training(copy_of_trained, run, damage, capsys):
    lora = load_file(run.lora)
    damage(run.folder / "run.json")
    pipeline.walk(again(copy_of_trained), last="export")
    assert "run.json: cannot be read; its training goes on from the checkpoints" in (said := capsys.readouterr().err)
    assert "goes on after step 4" in said
    (found,) = runs.all_runs(copy_of_trained.folder)
    assert found.facts["result"]["steps"] == 4 and all(torch.equal(lora[key], tensor) for key, tensor in load_file(found.lora).items())


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metrics_stop_nothing(copy_of_trained, run, damage):
    damage(run.metrics)
    run.reopen()
    pipeline.walk(again(copy_of_trained))
    assert json.loads((run.folder / "run.json").read_text())["done"]["train"]


def test_what_a_kill_left_half_written_is_removed(copy_of_trained, run):
    part = run.checkpoints / ".step_000006.part"
    part.mkdir()
    (part / "adapter.safetensors").write_bytes(b"half")
    leaving = copy_of_trained.cache_folder / "latents" / ".a.safetensors.part"
    leaving.write_bytes(b"half")
    mine = copy_of_trained.folder / "my.part"
    mine.write_bytes(b"mine")
    pipeline.walk(again(copy_of_trained))
    assert not part.exists() and not leaving.exists() and mine.exists()


def test_huge_repeats_are_refused(copy_of_trained):
    from lorakit.train.preflight import preflight

    record = copy_of_trained.manifest.selected[0]
    copy_of_trained.manifest.keep({**record, "repeats": 20240101})
    with pytest.raises(LorakitError, match="20,240,101 repeats, by its folder's name"):
        preflight(copy_of_trained)


def test_a_disk_that_is_full_leaves_no_half_checkpoint(run, monkeypatch):
    shutil.rmtree(checkpoint.folder_of(run, 2))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save_checkpoint(run, 2, {"a": torch.ones(1)}, {})
    assert checkpoint.all_steps(run) == [4] and not list(run.checkpoints.glob(".*"))
