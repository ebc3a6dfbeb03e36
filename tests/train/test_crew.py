"""Several processes train as one would, and none waits for another that does not come: crews of two and three, with gloo on the CPU."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lorakit import open_project
from lorakit.errors import LorakitError, Stopped
from lorakit.project import runs
from lorakit.train import crew, tensor_file
from lorakit.train.learner import Learner
from lorakit.train.train import train
from tests import crews
from tests.conftest import adapter, draw_photo

pytestmark = pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="torchrun's gloo is tried on Unix")

SPLIT = {"train.batch_size": 2, "train.learning_rate": 1e-3, "train.checkpoint_every": 2, "sample.every": 0, "train.validate_every": 0}
WHOLE = {**SPLIT, "train.gradient_accumulation": 2, "train.steps": 2, "train.precision": "bf16"}
MUCH = {
    "train.batch_size": 3, "train.ema": 0.9, "train.preservation": 0.2, "train.caption_dropout": 0.3, "train.multires_noise": 0.4,
    "train.noise_offset": 0.05, "train.lora_plus_ratio": 4, "train.input_perturbation": 0.1, "train.loss_weighting": "min_snr",
    "train.learning_rate": 1e-3, "train.steps": 3, "train.validate_every": 3, "sample.every": 2,
}  # fmt: skip
ON_A_SMALL_CARD = {
    "train.adapter": "dora", "train.base_precision": "fp8", "train.gradient_checkpointing": "on", "train.masked_loss": True,
    "train.text_encoder": True, "train.ema": 0.9, "train.batch_size": 2, "train.gradient_accumulation": 2, "train.learning_rate": 1.0,
    "train.steps": 2, "sample.every": 0, "train.optimizer": "prodigy",
}  # fmt: skip
SWAPPED = {
    "train.adapter": "lokr", "train.base_precision": "nf4", "train.gradient_checkpointing": "on", "train.swap_blocks": 3,
    "train.batch_size": 2, "train.learning_rate": 1e-3, "train.steps": 2, "sample.every": 0,
}  # fmt: skip
# A batch in two parts is rounded otherwise than in one, whoever works them out: measured up to 1.1e-5, see docs/scale.md.
CLOSE, RELATIVE = 2e-4, 5e-5


@pytest.fixture(scope="module")
def untrained(trained, tmp_path_factory):
    """A copy of the trained project without its run and cache; to be copied again by tests that change it."""
    folder = tmp_path_factory.mktemp("crew") / "project"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns(".lock", "runs", "latents", "texts"))
    return folder


@pytest.fixture
def copy(untrained, tmp_path):
    return shutil.copytree(untrained, tmp_path / "project")


@pytest.fixture(scope="module")
def compared(untrained, tmp_path_factory):
    """What a crew of two says of the plain cases; `alone.safetensors` beside it is what one process has learned of the split one."""
    out = tmp_path_factory.mktemp("compared")
    folder = shutil.copytree(untrained, out / "project")
    return compare(2, folder, {"whole": WHOLE, "split": SPLIT}, out)


def compare(size, folder, cases, out):
    ended = crews.launch(size, crews.compare, str(folder), cases, out / "found.json", folder=out)
    assert ended.codes == [0] * size, "\n".join(ended.said)
    assert not any(ended.said[1:])  # the others keep quiet
    return json.loads((out / "found.json").read_text(encoding="utf-8")), out, ended.said[0]


@pytest.mark.slow
def test_whole_batches_give_the_same_bits_as_one_process(compared):
    found = compared[0]["whole"]
    assert found["size"] == 2 and found["steps"] == 2 and found["learned"] and found["photos"]
    assert found["largest"] == 0 and found["bit-equal"] == 1 and found["numbers"] == 0


@pytest.mark.slow
def test_split_batches_give_the_same_but_for_rounding(compared):
    found, _, said = compared
    split = found["split"]
    assert split["size"] == 2 and split["learned"] and split["photos"]
    assert split["largest"] < CLOSE and split["relative"] < RELATIVE and split["numbers"] < 1e-4
    assert max(split["visits"]) - min(split["visits"]) <= 1  # every photo once an epoch
    assert "2 processes share the 2 photos of a step, and train the same as one would" in said


def test_what_is_asked_of_a_crew_by_a_process_alone_it_does_itself():
    assert (crew.count(), crew.size(), crew.rank(), crew.leads()) == (1, 1, 0, True)
    assert crew.share(lambda own: [number**2 for number in own], 4) == [0, 1, 4, 9]
    with crew.called(print, "nobody hears this"), pytest.raises(LorakitError, match="of its own"):
        crew.tell("nor this")
        crew.together(lambda: (_ for _ in ()).throw(LorakitError("of its own")))


@pytest.mark.parametrize("accumulation", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [2, 3])
def test_every_photo_of_a_step_falls_to_one_process_and_as_many_to_each_as_can_be(monkeypatch, size, accumulation):
    from lorakit.settings import Train

    settings = Train(batch_size=3, gradient_accumulation=accumulation)
    taken = []
    for rank in range(size):
        monkeypatch.setattr(crew, "_crew", crew._Crew(rank, size, is_called=True))
        numbers = range(5 * accumulation, 6 * accumulation)
        taken.append([(number, row) for number in numbers for row in crew.rows_of(3, number, settings)])
        assert max((len([row for at, row in taken[-1] if at == number]) for number in numbers), default=0) <= crew.rows_at_once(settings)
    assert sorted(photo for some in taken for photo in some) == [(n, row) for n in numbers for row in range(3)]
    assert max(map(len, taken)) - min(map(len, taken)) <= (0 if accumulation % size == 0 else 1)


@pytest.mark.slow
def test_help_and_errors_send_everybody_home(tmp_path):
    helped = crews.launch(3, crews.command, ["train", "--help"], folder=tmp_path / "help")
    assert helped.codes == [0, 0, 0] and helped.said[0].count("Usage:") == 1 and helped.said[1:] == ["", ""]
    failed = crews.launch(2, crews.command, ["train", str(tmp_path / "nowhere")], folder=tmp_path / "error")
    assert failed.codes == [2, 0] and failed.said[1] == ""
    assert failed.said[0].startswith("error: ") and failed.said[0].count("\n") == 1


def other_version(rank):
    if rank:
        crew.__version__ = "9.9"


@pytest.mark.slow
def test_a_leader_that_dies_and_another_version_leave_nobody_waiting(tmp_path):
    alone = crews.launch(3, crews.bereave, folder=tmp_path / "alone")
    assert alone.codes == [-9, 1, 1] and alone.said == ["", "", ""]
    mixed = crews.launch(2, crews.command, ["bases"], other_version, folder=tmp_path / "mixed")
    assert mixed.codes == [2, 1] and mixed.said[1] == ""
    assert re.fullmatch(
        r"error: \S+ has lorakit 9.9 and torch \S+, \S+ has lorakit \S+ and torch \S+; install the same on both\n", mixed.said[0]
    )


@pytest.mark.slow
def test_a_failure_anywhere_in_what_is_shared_out_leaves_all_in_step(tmp_path):
    ended = crews.launch(3, crews.stumble, tmp_path / "found.json", folder=tmp_path)
    assert ended.codes == [0, 0, 0] and ended.said == ["", "", ""], ended.said
    found, said = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found == [one for who in (0, 0, 1, 1, 2, 2) for one in (f"out of memory in process {who}: full", [0, 1, 2, 3, 4])]
    assert said == f"process 1 on {socket.gethostname()}: its disk is gone"


def log_writes(log):
    """Note who writes which file of the cache."""
    usual = tensor_file.write

    def write(path, *given):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{crew._crew.rank} {path}\n")
        usual(path, *given)

    tensor_file.write = write


def interrupted(rank, log):
    """The leader takes longer to begin than the group of the gradients would wait; then Ctrl-C comes to all, as torchrun passes it on."""
    from datetime import timedelta

    from lorakit import pipeline

    log_writes(log)
    crew.WORKING = timedelta(seconds=5)
    walk, learn = pipeline.walk, Learner.learn

    def slow(*given):
        time.sleep(7)
        return walk(*given)

    def learn_one(self, rate, sampler):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(self, rate, sampler)

    pipeline.walk, Learner.learn = slow, learn_one


def words(folder, *more, **settings):
    chosen = [word for key, value in {**SPLIT, **settings}.items() for word in ("--set", f"{key}={value}")]
    return ["train", str(folder), "--until", "train", "--device", "cpu", *chosen, *more]


@pytest.mark.slow
def test_one_ctrl_c_ends_all_with_a_checkpoint_after_a_wait_longer_than_the_groups_and_the_cache_is_shared_out(
    copy, compared, tmp_path, monkeypatch
):
    log = tmp_path / "writes.txt"
    ended = crews.launch(2, crews.command, words(copy), interrupted, log, folder=tmp_path / "crew")
    assert ended.codes == [130, 0], "\n".join(ended.said)
    assert "train     stopped after step 2 of 4, which is kept; the same command goes on from there" in ended.said[0]
    assert ended.said[1] == ""
    (run,) = runs.all_runs(copy)
    assert run.saved_steps == [2] and len(run.read_metrics()) == 2
    lines = log.read_text(encoding="utf-8").splitlines()
    paths = [line.split(" ", 1)[1] for line in lines]
    assert len(set(paths)) == len(paths) == len(list(copy.glob("cache/*/*.safetensors"))) > 6  # nobody writes what another writes
    assert {line[0] for line in lines} == {"0", "1"}

    learn = Learner.learn
    monkeypatch.setattr(
        Learner, "learn", lambda self, *given: (self.step == 2 and os.kill(os.getpid(), signal.SIGINT)) or learn(self, *given)
    )
    with pytest.raises(Stopped):
        train(open_project(copy, settings=SPLIT, device="cpu"))  # goes on alone
    assert run.saved_steps == [2, 3]
    ended = crews.launch(3, crews.command, words(copy), folder=tmp_path / "three")  # and then with three
    assert ended.codes == [0, 0, 0] and "goes on after step 3" in ended.said[0], "\n".join(ended.said)
    (run,) = runs.all_runs(copy)
    found, wanted = adapter(run), load_file(compared[1] / "split.safetensors")
    assert len(run.read_metrics()) == 4
    assert max(float((wanted[key] - found[key]).abs().max()) for key in wanted) < CLOSE


def killed(rank):
    learn = Learner.learn

    def learn_one(self, rate, sampler):
        if rank == 1 and self.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return learn(self, rate, sampler)

    Learner.learn = learn_one


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_one_line_and_a_checkpoint(compared, tmp_path):
    copy = shutil.copytree(compared[1] / "project", tmp_path / "project")
    ended = crews.launch(2, crews.command, words(copy), killed, folder=tmp_path / "crew")
    assert ended.codes == [1, -9], "\n".join(ended.said)
    last = ended.said[0].splitlines()[-1]
    assert re.fullmatch(r"error: process 1 \(pid \d+\) of the 2 has ended; all up to step 3 is kept, .*goes on from there", last), last
    assert "Traceback" not in ended.said[0]
    (run,) = runs.all_runs(copy)
    assert run.saved_steps == [2, 3] and len(run.read_metrics()) == 3


def test_a_launcher_that_starts_one_process_alone_is_named(monkeypatch, capsys):
    from lorakit.settings import Train

    crew.say_shares(Train())
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    crew.say_shares(Train())
    assert "one process: `accelerate launch --cpu` starts no more, whatever --num_processes says" in capsys.readouterr().err


def test_a_device_for_one_is_refused_and_processes_without_photos_are_named(monkeypatch, make_project, capsys):
    from lorakit.settings import Train

    monkeypatch.setattr(crew, "_crew", crew._Crew(0, 4, members=[{"host": "a"}, {"host": "a"}, {"host": "b"}, {"host": "b"}]))
    project = make_project()
    crew.check(project)
    project.device = "cuda:1"
    with pytest.raises(LorakitError, match="--device cuda gives each a card of its own"):
        crew.check(project)
    crew.say_shares(Train(batch_size=1, gradient_accumulation=2))
    said = capsys.readouterr().err
    assert "4 processes on 2 machines share the 2 photos of a step" in said and "2 of them have nothing to do in a step" in said


# ---- slow


@pytest.fixture(scope="module")
def with_all(untrained, tmp_path_factory):
    """The project with regularisation photos and masks."""
    out = tmp_path_factory.mktemp("all")
    folder, others = shutil.copytree(untrained, out / "project"), out / "others"
    others.mkdir()
    for number in range(3):
        draw_photo(50 + number, (600, 600)).save(others / f"mug_{number}.jpg")
    project = open_project(folder, device="cpu")
    project.masks_folder.mkdir()
    for record in project.manifest.selected:
        mask = Image.new("L", tuple(record["crop"]["bucket"]), 64)
        mask.paste(255, (0, 0, mask.width // 2, mask.height))
        mask.save(project.masks_folder / f"{record['id']}.png")
        project.manifest.keep({**record, "dataset": {**record["dataset"], "mask": f"{record['id']}.png"}})
    project.manifest.save()
    return folder, {**MUCH, "train.regularisation": str(others), "train.regularisation_share": 0.4}


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_whatever_is_trained_is_the_same_with_several(with_all, size, tmp_path):
    folder, much = with_all
    if size == 2:
        cases = {"all": {**much, "train.gradient_accumulation": 3}, "small card": ON_A_SMALL_CARD, "swapped": SWAPPED}
    else:
        cases = {"all": {**much, "train.gradient_accumulation": 2, "train.validate_every": 0, "sample.every": 0}}
    found, _, _ = compare(size, folder, cases, tmp_path)
    for name, one in found.items():
        assert one["size"] == size and one["learned"] and one["photos"], (name, one)
        assert one["largest"] < CLOSE and one["relative"] < RELATIVE and one["numbers"] < 1e-4, (name, one)
    if size == 2:
        assert found["all"]["watched"] == 2 and found["all"]["samples"][:2] == [True, 2] and found["all"]["samples"][2] <= 2
        assert found["small card"]["largest"] == 0  # as many batches as processes


def poor(rank):
    """The second process has no memory at one step, and later no files."""
    from lorakit.train.loss import BatchLoss

    usual, seen = BatchLoss.loss_of, []

    def loss(self, drawn):
        if rank == 1:
            seen.append(drawn.number)
            if seen.count(1) == 1 and drawn.number == 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            if drawn.number == 3:
                raise LorakitError("texts: gone.safetensors is gone")
        return usual(self, drawn)

    BatchLoss.loss_of = loss


@pytest.mark.slow
def test_what_fails_in_one_process_fails_in_all_and_is_said_once(copy, tmp_path):
    ended = crews.launch(2, crews.command, words(copy), poor, folder=tmp_path / "crew")
    assert ended.codes == [1, 0] and ended.said[1] == "", "\n".join(ended.said)
    assert "the memory was not enough at step 2; turned on" in ended.said[0]
    assert "the training goes on from the same step with the same numbers" in ended.said[0]
    last = ended.said[0].splitlines()[-1]
    assert last.startswith(f"error: process 1 on {socket.gethostname()}: texts: gone.safetensors is gone; all up to step 3 is kept"), last
    assert runs.all_runs(copy)[0].saved_steps == [2, 3]


def elsewhere(rank, log):
    """Of three processes the last is on a machine whose cache is its own."""
    from lorakit.project.project import Project

    log_writes(log)
    if rank == 2:
        Project.cache_folder = property(lambda self: self.folder / "cache_there")


@pytest.mark.slow
def test_a_machine_with_a_cache_of_its_own_encodes_all_of_it(copy, tmp_path):
    log = tmp_path / "writes.txt"
    ended = crews.launch(
        3, crews.command, [*words(copy)[:2], "--until", "cache", *words(copy)[4:]], elsewhere, log, folder=tmp_path / "crew"
    )
    assert ended.codes == [0, 0, 0], "\n".join(ended.said)
    here, there = ({path.name for path in copy.glob(f"{cache}/*/*.safetensors")} for cache in ("cache", "cache_there"))
    assert here == there and len(here) > 6
    paths = log.read_text(encoding="utf-8").split("\n")
    assert len(set(paths)) == len(paths)


@pytest.mark.slow
def test_torchrun_on_two_machines_trains_with_both(copy, compared, tmp_path):
    """Two groups of processes that find each other by torchrun's rendezvous, as two machines do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", place, "--rdzv-id", "lorakit", "-m", "lorakit", *words(copy)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen(launcher, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    said = [process.communicate(timeout=crews.PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "2 processes share the 2 photos of a step" in said[0][1] + said[1][1]
    (run,) = runs.all_runs(copy)
    found, wanted = adapter(run), load_file(compared[1] / "split.safetensors")
    assert run.saved_steps[-1] == 4 and max(float((wanted[key] - found[key]).abs().max()) for key in wanted) < CLOSE
