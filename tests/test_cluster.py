"""The engine of `--engine ray`: what it finds is what threads find, to the byte; a killed worker costs nothing, and a photo that kills
its worker each time is named and takes none of its neighbours with it."""

import os
import pickle
import signal
import sys

import pytest

import lorakit
from lorakit import pipeline
from lorakit.ahead import Threads, in_parts
from lorakit.cli import group
from lorakit.cluster import DEADLY, Cluster, Single, taken, worth
from lorakit.errors import LorakitError, UnknownName, UnreadablePhoto
from lorakit.photos.remote import Remote
from tests.conftest import QUICK

DEADLY_NUMBER, FAULTY = 211, -1


def square(numbers: list[int]) -> list[int]:
    """The work of these tests, as it is sent to workers."""
    if DEADLY_NUMBER in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    if FAULTY in numbers:
        raise UnknownName("stage", "scna", ["scan"])
    return [number * number for number in numbers]


def test_without_ray_one_line_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LorakitError, match=r"lorakit\[ray\]"):
        group(["curate", str(tmp_path), "-o", str(tmp_path / "new"), "--engine", "ray"], standalone_mode=False)
    assert not (tmp_path / "new").exists()


def test_an_address_without_the_engine_is_refused(tmp_path):
    with pytest.raises(LorakitError, match="wants --engine ray"):
        group(["curate", str(tmp_path), "--ray-address", "localhost:6379"], standalone_mode=False)


@pytest.mark.parametrize(("address", "said"), [("127.0.0.1:1", "nobody answers"), ("nowhere", "host:port"), ("host:x", "host:port")])
def test_a_cluster_that_is_not_there_is_said_before_anything_begins(tmp_path, address, said):
    pytest.importorskip("ray")
    with pytest.raises(LorakitError, match=said):
        group(["curate", str(tmp_path), "-o", str(tmp_path / "new"), "--engine", "ray", "--ray-address", address], standalone_mode=False)
    assert not (tmp_path / "new").exists()


def test_it_is_said_whether_it_pays():
    assert "on one machine threads do the same in less" in worth(10_000, False, 1, 2)[0]
    assert "pays with small photos from about" in worth(10_000, False, 4, 32)[0]


def test_a_finished_stage_starts_no_cluster():
    assert list(Cluster().each(square, [])) == []
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


@pytest.fixture(scope="module")
def cluster():
    engine = Cluster()
    yield engine
    engine.close()


def stages(project, engine):
    project.engine = engine
    for name in ("scan", "check", "dedupe", "embed", "select", "crop", "caption", "trigger", "dataset"):
        pipeline.stage_function(name)(project)
    written = {path.name: path.read_bytes() for path in sorted(project.dataset_folder.iterdir())}
    return project.manifest.path.read_bytes(), written


class OneWorker(Cluster):
    """What a worker of a cluster does with what it is sent, in this process: all but Ray itself."""

    def each(self, work, items, at_once=1, with_model=False):
        worker = Single(pytest.importorskip("ray").cloudpickle.dumps(work))
        for part in in_parts(items, at_once):
            yield from zip(part, taken(worker.one(pickle.dumps(part))), strict=True)


def on_a_cluster():
    """The same by Ray itself: five starts of workers, minutes of a busy machine."""
    if not os.environ.get("LORAKIT_SOAK"):
        pytest.skip("LORAKIT_SOAK=1 runs it")
    return Cluster()


@pytest.mark.parametrize("engine", [OneWorker, pytest.param(on_a_cluster, marks=pytest.mark.slow)])
def test_what_is_found_is_what_threads_find(engine, make_photo, photo_folder, tiny_clip, tmp_path):
    engine = engine()
    (photo_folder / "cut.jpg").write_bytes(make_photo("whole.jpg", 7).read_bytes()[:9000])
    (photo_folder / "text.png").write_text("no photo")
    make_photo("again.jpg", 1, quality=60)

    def project(name):
        settings = {**QUICK, "embed.clip": str(tiny_clip), "caption.batch_size": 2}
        return lorakit.new_project(tmp_path / name, photo_folder, base="tiny-random", trigger="zwx", device="cpu", settings=settings)

    book, written = stages(project("threads"), Threads())
    assert stages(project("ray"), engine) == (book, written)
    engine.close()
    assert len(written) > 6 and b"imagenet" in book and b'"cosine"' in book


def test_a_photo_that_a_worker_does_not_see_is_no_damaged_photo(make_photo, monkeypatch):
    path = make_photo("a.jpg", 1)
    answer = pickle.loads(Single(pickle.dumps(len)).one(pickle.dumps([path.with_name("gone.jpg")])))
    assert answer.unseen.endswith("gone.jpg")
    shard = Remote(f"file://{path.with_name('gone.tar')}#bytes=0-9")
    assert pickle.loads(Single(pickle.dumps(len)).one(pickle.dumps([shard]))).unseen.endswith("gone.tar")
    answer.unseen = str(path)  # here it is, there it was not
    with pytest.raises(LorakitError, match="is here, and not on"):
        taken(pickle.dumps(answer))


@pytest.mark.slow
def test_a_killed_worker_costs_nothing_and_a_deadly_photo_only_itself(cluster, capsys):
    import psutil

    found, killed = {}, 0
    for number, result in cluster.each(square, range(400)):
        found[number] = result
        if not killed:
            worker = next(p for p in psutil.Process().children(recursive=True) if "MapWorker" in p.name() + "".join(p.cmdline()))
            worker.kill()
            killed = 1
    lost = found.pop(DEADLY_NUMBER)
    assert isinstance(lost, UnreadablePhoto) and (lost.reason, lost.detail) == ("damaged", DEADLY)
    assert found == {number: number * number for number in range(400) if number != DEADLY_NUMBER}
    assert "one by one" in capsys.readouterr().err
    with pytest.raises(UnknownName, match="did you mean 'scan'"):
        list(cluster.each(square, [1, FAULTY, 3], at_once=1))
