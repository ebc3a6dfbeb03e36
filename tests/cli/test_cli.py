"""The command line as a user meets it: results on stdout, mistakes in one line, exit codes."""

import json
import subprocess
import sys

import pytest

from tests.conftest import QUICK


def lorakit(*words, **options):
    command = [sys.executable, "-m", "lorakit", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", **options)


SETS = [word for key, value in QUICK.items() if key != "caption.captioner" for word in ("--set", f"{key}={value}")]


def test_curate_then_status_json(tmp_path, photo_folder, make_photo):
    make_photo("tiny.png", seed=9, size=(90, 60))
    make_photo("sub/photo_0.jpg", seed=0, quality=40)
    (photo_folder / "broken.jpg").write_bytes((photo_folder / "photo_0.jpg").read_bytes()[:9000])
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in photo_folder.rglob("*") if p.is_file()}
    done = lorakit("curate", photo_folder, "-o", tmp_path / "p", "--base", "tiny-random")
    assert done.returncode == 0, done.stderr
    found = json.loads(lorakit("status", tmp_path / "p", "--json").stdout)
    photos = {photo["file"]: photo for photo in found["photos"]}
    assert photos["photo_1.jpg"]["verdict"] == "keep" and photos["photo_1.jpg"]["selected"]
    assert {"reason": "too_small", "value": 60, "threshold": 384} in photos["tiny.png"]["reasons"]
    assert photos["broken.jpg"]["verdict"] == "reject" and photos["broken.jpg"]["reasons"][0]["reason"] == "damaged"
    assert photos["sub/photo_0.jpg"]["duplicate_of"] == "photo_0.jpg"
    assert set(photos["photo_1.jpg"]) >= {"file", "verdict", "reasons", "duplicate_of", "selected", "caption", "text"}
    assert found["stages"]["check"] == {"done": 9, "pending": 0, "failed": 0}
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in photo_folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "missing", "-o", "p"], "no such folder of photos"),
        (["run", "photos", "-o", "p", "--base", "sd1.5"], "did you mean 'sd15'"),
        (["run", "photos", "-o", "p", "--kind", "styel"], "did you mean 'style'"),
        (["run", "photos", "-o", "p", "--set", "train.rnak=4"], "did you mean 'train.rank'"),
        (["run", "photos", "-o", "p", "--base", "tiny-random", "--trigger", "a, b"], "a trigger is one word or a few"),
        pytest.param(
            ["run", "photos", "-o", "p", "--base", "tiny-random", "--device", "cuda:9", "--trigger", "zwx"],
            "--device cuda:9",
            marks=pytest.mark.slow,
        ),
        (["run", "photos", "-o", "p", "--base", "tiny-random", "--weights", "photos", "--trigger", "zwx"], "no model_index.json in it"),
        (["run", "photos", "-o", "photos"], "not empty and no lorakit project"),
        (["status", "photos"], "no lorakit project"),
        (["run", "photos", "-o", "p", "--base", "tiny-random", "--until", "crops"], "did you mean 'crop'"),
        (["curate"], "name the folder of photos"),
        (["run"], "name the folder of photos"),
        (["run", "photos", "-o", "p", "--base", "tiny-random"], "or go on with --no-trigger"),
        (["run", "photos", "-o", "p", "--trigger", "dog dog"], "'dog' stands in it twice"),
        (["run", "photos", "-o", "p", "--trigger", "dog"], "To take it all the same: --set trigger.word='dog'"),
        (["caption", "p", "--trigger", "(zwx:1.2)"], "no lorakit project"),
        (["run", "photos", "-o", "p", "--trigger", "(zwx:1.2)"], "is syntax: tools for drawing read it"),
        (["run", "photos", "-o", "p", "--trigger", "zwx", "--no-trigger"], "not both"),
        (["run", "photos", "-o", "p", "--trigger", "zwx", "--captioner", "blipp"], "did you mean 'blip'"),
        (["run", "photos", "-o", "p", "--trigger", "zwx", "--device", "tpu"], "no such device; cuda, mps, cpu"),
        (["train", "photos", "-o", "p", "--device", "tpu"], "no such device; cuda, mps, cpu"),
    ],
)
def test_mistakes_are_one_line_and_a_non_zero_exit(words, message, photo_folder, tmp_path):
    done = lorakit(*words, cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr and "gemm_4bit" not in done.stderr  # a library's word to itself
    assert not (tmp_path / "p").exists(), "a start that failed leaves no folder"


@pytest.mark.slow
def test_folder_curated_by_hand_is_used_whole(tmp_path, make_photo, photo_folder, tiny_weights):
    """kohya's repeats, .txt and .caption, and a photo without words that is named, left out, and makes exit code 3."""
    make_photo("5_zwx mug/copy.jpg", seed=1, quality=60)
    make_photo("5_zwx mug/small.png", seed=12, size=(70, 80))
    (photo_folder / "5_zwx mug" / "copy.txt").write_text("a zwx mug, seen from above", encoding="utf-8")
    (photo_folder / "5_zwx mug" / "small.caption").write_text("blue mug", encoding="utf-8")
    for number in range(5):
        (photo_folder / f"photo_{number}.txt").write_text(f"mug number {number}", encoding="utf-8")
    done = lorakit("train", photo_folder, "-o", tmp_path / "p", "--base", "tiny-random", "--weights", tiny_weights,
                   "--trigger", "zwx", "--until", "dataset", *SETS)  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "photo_5.jpg: no caption, left out" in done.stderr
    texts = {p.stem: p.read_text(encoding="utf-8").strip() for p in (tmp_path / "p" / "dataset").glob("*.txt")}
    assert len(texts) == 7
    assert texts["5_zwx_mug_copy"] == "a zwx mug, seen from above"
    assert texts["5_zwx_mug_small"] == "zwx, blue mug"
    records = [json.loads(line) for line in (tmp_path / "p" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {r["file"]: r["repeats"] for r in records}["5_zwx mug/small.png"] == 5


def test_lists_name_what_there_is():
    listed = lorakit("bases").stdout.splitlines()
    at = {line.split()[0]: number for number, line in enumerate(listed)}
    assert listed.index("FLUX.2") < at["flux2-klein-4b"] < at["flux2-klein-9b"] < listed.index("FLUX.1") < at["flux1-dev"] < at["mini"]
    assert all(
        word in listed[at["flux2-klein-9b"]] for word in ("2026-01", "34.7 GB", "12 GB of VRAM", "Non-Commercial", "accept its licence")
    )
    assert "likeness" in lorakit("kinds").stdout
    assert "imagenet" in (captioners := lorakit("captioners").stdout) and "coarse" in captioners
    shown = lorakit("show", "--base", "sdxl", "--kind", "style", "--set", "train.rank=7").stdout
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines()}
    assert lines["train.resolution"] == ["1024", "base", "sdxl"]
    assert lines["train.rank"] == ["7", "command", "line"]
    assert lines["trigger.teaches"] == ["style", "kind", "style"]


def test_doctor_says_what_can_be_trained_here():
    done = lorakit("doctor")
    assert done.returncode == 0
    assert "torch" in done.stdout and "cpu" in done.stdout and "tiny-random" in done.stdout


@pytest.mark.slow
def test_review_wins_over_the_checks(tmp_path, photo_folder, make_photo):
    make_photo("tiny.png", seed=9, size=(90, 60))
    project = tmp_path / "p"
    lorakit("curate", photo_folder, "-o", project, "--base", "tiny-random")
    assert lorakit("review", project, "tiny.png", "--keep").returncode == 0
    assert lorakit("review", project, "photo_1.jpg", "--reject").returncode == 0
    lorakit("curate", "-o", project)
    photos = {p["file"]: p for p in json.loads(lorakit("status", project, "--json").stdout)["photos"]}
    assert photos["tiny.png"]["selected"] and photos["tiny.png"]["by_hand"]
    assert not photos["photo_1.jpg"]["selected"]
    wrong = lorakit("review", project, "nothing.png", "--keep")
    assert wrong.returncode == 2 and "no photo of this project is called so" in wrong.stderr


def test_the_console_says_what_was_found_and_what_comes_next(tmp_path, photo_folder, make_photo):
    make_photo("tiny.png", seed=9, size=(90, 60))
    make_photo("copy.jpg", seed=1, quality=60)
    project = tmp_path / "p"
    first = lorakit("curate", photo_folder, "-o", project, "--base", "tiny-random", cwd=tmp_path).stderr.splitlines()
    assert first[0] == f"project   {project} (tiny-random, object)"
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in first}
    assert lines["scan"] == "8 photos"
    assert lines["check"].startswith("8 photos: ") and "1 reject (1 too small)" in lines["check"]
    assert lines["dedupe"] == "1 copy left out (1 near duplicate), 7 photos left"
    assert lines["select"].startswith("6 of 6 usable photos chosen") and lines["crop"].startswith("6 photos in ")
    assert first[-2:] == ["next      lorakit status p", "next      lorakit caption p --trigger zwx"]
    again = lorakit("run", "-o", project, "--trigger", "zwx", "--until", "crop", cwd=tmp_path)  # without PHOTOS
    assert again.returncode == 0 and "8 photos (nothing to do)" in again.stderr


def test_help_is_found_as_it_is_typed_and_cuts_no_line():
    top = lorakit("help").stdout
    assert top == lorakit("--help").stdout.replace("\n\n\n", "\n\n") or "Commands:" in top
    assert "..." not in top.partition("Commands:")[2] and "\u2026" not in top
    assert "--captioner" in lorakit("help", "run").stdout
    wrong = lorakit("help", "trian")
    assert wrong.returncode == 2 and "did you mean 'train'" in wrong.stderr
