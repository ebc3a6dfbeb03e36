"""The report: one page that answers first, then shows pictures, curve, photos and settings, and needs no other file."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import lorakit
from lorakit.cli.run import command as run_command
from lorakit.project import by_hand, open_project, runs, stamps
from lorakit.quality import in_words
from lorakit.quality.curve import VERDICTS
from lorakit.quality.judge import judge
from lorakit.quality.verdicts import Reason
from lorakit.report import photo_part, training_part
from lorakit.report.answers import HEADLINES, first_screen
from lorakit.report.charts import MOST_POINTS, Mark, Series, chart, thinned, ticks
from lorakit.report.report import render
from tests.conftest import draw_photo

DOCS = Path(lorakit.__file__).parents[1] / "docs"


def page_of(project):
    return lorakit.report(project).read_text(encoding="utf-8")


def run_of(project):
    return runs.find(project.folder, stamps.train(project))


def texts_in(page):
    """What a reader sees of a page's body."""
    return " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page.split("<body>")[1], flags=re.DOTALL).split())


def test_report_of_a_training_shows_all_parts(trained):
    page = page_of(trained)
    for part in ("Base and LoRA", "Over time", "The curve", "The chosen photos", "What the texts say", "The file", "Settings"):
        assert f"<h2>{part}" in page
    for place in re.findall(r'<a href="#([^"]+)"', page):
        assert f'id="{place}"' in page
    for record in trained.manifest.selected:
        assert record["file"] in page and record["text"] in page
    assert page.count("data:image/jpeg") >= 4 + 2 * 2  # photos; two prompts without and with the LoRA
    assert "base tiny-random" in page  # the layer of a setting


def test_the_first_screen_says_what_to_use_and_how(trained):
    run, page = run_of(trained), page_of(trained)
    first = texts_in(page.split("</header>")[0])
    for words in (
        "Too short to tell.",
        "Which file?",
        run.lora.name,
        "Step 4, the last",
        "Begin at 0.7.",
        "zwx mug &lt;lora:zwx_object_tiny-random:0.7&gt;",
    ):
        assert words in first, words
    assert f"{run.lora.stem}.comfyui.json" in first and (run.folder / f"{run.lora.stem}.comfyui.json").is_file()
    assert "Are the captions good enough? All 4 texts are by the captioner that comes with lorakit" in first, "QUICK captions offline"
    assert "loaded whole by ComfyUI, A1111, Forge and diffusers" in first and first.index("Which file?") < first.index("What next time?")


def test_each_verdict_has_its_headline(trained):
    assert HEADLINES.keys() == set(VERDICTS)
    training, photos = training_part.training_part(trained, run_of(trained)), photo_part.photo_part(trained)
    steps = range(1, 401)
    jumps = np.random.default_rng(0).lognormal(0, 0.2, len(steps))
    falls = [float(jump * (0.1 + 0.3 * np.exp(-step / 80))) for step, jump in zip(steps, jumps)]
    level = [float(0.2 * jump) for jump in jumps]
    held_out = {step: 0.1 + 0.3 * np.exp(-step / 40) + (max(0, step - 150) / 400) * 0.4 for step in range(10, 401, 10)}
    for losses, validation, headline, tone in ((falls, {}, "It learned.", "good"), (level, {}, "It shows no sign of learning.", "bad"),
                                               (falls, held_out, "It learned, and then by heart.", "look")):  # fmt: skip
        metrics = [
            {"step": s, "loss": x, "photos": ["a.jpg"]} | ({"validation": validation[s]} if s in validation else {})
            for s, x in zip(steps, losses)
        ]
        verdict = judge(metrics, {"train.learning_rate": 1e-4}, [100, 200, 400])
        screen = first_screen(
            trained,
            run_of(trained),
            photos,
            training | {"judgement": verdict, "is_validated": bool(validation), "held_out": ["a.jpg"] if validation else []},
        )
        assert (screen.headline, screen.tone) == (headline, tone)
        assert ("never trained on" if validation else "none were held out") in screen.because
    measured = judge(metrics, {}, [100, 200, 400], {"strengths": {"0": 1.0, "0.4": 0.6, "0.8": 0.5, "1": 0.55}})
    again = first_screen(trained, run_of(trained), photos, training | {"judgement": measured, "is_validated": True})
    least, most = measured.strength
    assert any(answer.words.startswith(f"{least:g} to {most:g}; begin at") for answer in again.answers)
    assert training_part.strength_chart({"0": 1.0, "0.5": 0.5, "1": 0.6}, measured).count("<polyline") == 1
    assert any("lorakit pick project --step 200" in answer.code or "--step 100" in answer.code for answer in screen.answers)
    (next_time,) = (answer for answer in screen.answers if answer.question == "What next time?")
    assert next_time.points[0].startswith("Take the checkpoint of step") and "train.steps" in next_time.points[1]


def test_base_and_lora_have_one_size_and_the_timeline_goes_from_base_to_final(trained):
    training = training_part.training_part(trained, run_of(trained))
    assert [prompt for prompt, _, _ in training["pairs"]] == run_of(trained).facts["result"]["prompts"]
    assert training["timeline"]["columns"] == ["base", "step 2", "final"]
    (first, *_), prompts = training["timeline"]["rows"], run_of(trained).facts["planned"]["prompts"]
    assert first[0] == prompts[0] and len(set(first[1])) == 3 and all(uri.startswith("data:") for uri in first[1])


def test_a_new_grid_or_pick_makes_a_new_page(copy_of_trained):
    project = copy_of_trained
    run, before = run_of(project), page_of(project)
    assert "How strong" not in before and lorakit.report(project).stat().st_mtime_ns == lorakit.report(project).stat().st_mtime_ns
    cells = run.samples / "grid"
    cells.mkdir()
    for x in range(2):
        draw_photo(x, (64, 64)).save(cells / f"0_{x}.png")
    (run.samples / "grid.json").write_text(
        json.dumps({"prompts": ["<i>zwx</i>"], "strengths": [0.0, 0.7], "columns": ["base", "0.7"]}), encoding="utf-8"
    )
    draw_photo(7, (64, 64)).save(run.samples / "grid.png")
    page = page_of(project)
    assert "How strong" in page and "&lt;i&gt;zwx&lt;/i&gt;" in page and "<figcaption>0.7</figcaption>" in page
    (run.samples / "grid.json").unlink()  # as grids of 0.2 were left: the sheet alone
    draw_photo(8, (64, 64)).save(run.samples / "grid.png")
    assert "strengths by prompts" in page_of(project)
    by_hand.pick(project, 2, 0.85)
    stamp = stamps.report(project)
    assert not run_of(project).is_done("report", stamp)
    assert "Step 2, picked by hand" in page_of(project) and "0.85, picked by hand" in page_of(project)


def test_texts_that_fit_worst_come_first(tiny_clip, make_project):
    project = make_project(**{"caption.clip": str(tiny_clip), "caption.min_facet": 0.0})
    lorakit.walk(project, last="dataset")
    cards = page_of(project).split("<h2>The chosen photos")[1].split("</section>")[0]
    scores = [float(score) for score in re.findall(r"fits (-?\d\.\d\d)", cards)]
    assert len(scores) == 6 and scores == sorted(scores) and scores[0] < scores[-1]
    assert "fit their photo worst come first" in cards.replace("\n", " ") and "of 75 tokens" in cards and "seen: " in cards
    records = sorted(project.manifest.selected, key=lambda r: r["trigger"]["agreement"])
    assert [r["file"] for r in records] == re.findall(r"<bdi>(\S+)</bdi>", cards)


def test_report_needs_no_other_file(trained):
    page = page_of(trained)
    addresses = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in re.sub(r'="data:[^"]*"', "", page) and "@import" not in page and "url(" not in page
    assert str(trained.folder) not in page and str(trained.photos[0]) not in page


HOSTILE = '</p><script>alert(1)</script><img src=x onerror=alert(2)> "quoted" {{ 7*7 }} \u202e\u05e9\u05dc\u05d5\u05dd'


def test_words_of_strangers_stay_text(copy_of_trained):
    project, run = copy_of_trained, run_of(copy_of_trained)
    for record in project.manifest.selected:
        record["text"] = HOSTILE
        record["file"] = "<b>x.jpg"
    run.facts["result"]["prompts"] = [HOSTILE, HOSTILE]
    page = render(project, run)
    assert "<script>alert" not in page and "<img src=x" not in page and "<b>x" not in page and "{{ 7*7 }}" in page
    assert page.count("<script>") == 1 and page.count('dir="auto"') >= 6  # right-to-left texts stay in their places


def test_what_is_damaged_or_missing_costs_only_itself(copy_of_trained, tmp_path):
    run = run_of(copy_of_trained)
    (run.samples / "final" / "0_lora.png").write_bytes(b"\x89PNG torn")
    (run.samples / "step_000002" / "0.png").unlink()
    (run.samples / "grid.png").write_bytes(b"")
    run.lora.write_bytes(b"\xff" * 20)
    run.metrics.unlink()
    page = render(copy_of_trained, run)
    assert page.count("be shown") >= 3 and "<polyline" not in page and "Nothing is trained yet" not in page
    (tmp_path / "none").mkdir()
    empty = lorakit.new_project(tmp_path / "empty", tmp_path / "none", base="tiny-random")
    assert "0 photos, none chosen yet." in page_of(empty)


def test_report_before_training_groups_rejected_photos_and_copies(tmp_path, photo_folder, make_photo):
    make_photo("<b>tiny.png", seed=9, size=(90, 60))
    make_photo("copy.jpg", seed=0, quality=40)
    (photo_folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    project = lorakit.new_project(tmp_path / "p", photo_folder, base="tiny-random")
    lorakit.walk(project, last="crop")
    page = page_of(project)
    seen = texts_in(page)
    assert "too small 1" in seen and "damaged 1" in seen and "nearly the same picture 1" in seen and "too small: 60 px, limit" in seen
    assert "6 of 9 photos are chosen." in seen and "lorakit train p" in seen
    assert "&lt;b&gt;tiny.png" in page and "<b>tiny.png" not in page
    assert "be shown" in page
    # Chips without a script: each hides what is not of its kind, and there is something of each kind.
    for name in ("rejected", "copies"):
        kinds = re.findall(rf'id="{name}-(\d+)"', page)
        assert kinds and all(f"#{name}-{kind}:checked ~ .shown > :not(.k{kind})" in page for kind in kinds)


def test_a_folder_of_thousands_makes_a_page_that_opens(trained, monkeypatch):
    real = list(trained.manifest)
    records = []
    for number in range(2000):
        record = dict(real[number % len(real)], id=f"{number:x}", file=f"photo_{number}.jpg")
        if number % 4 == 1:
            record["dedupe"] = {"of": f"{number - 1:x}", "reason": "near_duplicate", "distance": 9}
            record["select"] = {"selected": False, "reason": "rejected"}
        elif number % 2:
            record["measures"] = {**record["measures"], "size": {**record["measures"]["size"], "width": 40, "height": 30}}
            record["select"] = {"selected": False, "reason": "rejected"}
        records.append(record)
    selected = [r for r in records if r["select"]["selected"]]
    monkeypatch.setattr(photo_part, "picture_uri", lambda path, side: f"data:image/jpeg;base64,{'A' * side * 90}")  # 1.3 times a real one
    judged = photo_part.faults.judge(records, trained.settings)
    rejected, copies = photo_part.rejected_part(records, judged, 160), photo_part.copies_part(records, judged, 160)
    chosen = [photo_part.chosen_photo(r, judged[r["id"]], 320) for r in selected[: photo_part.SHOWN_CHOSEN]]
    assert (rejected["count"], copies["count"], len(selected)) == (500, 500, 1000)
    pictures = [*rejected["cells"], *(c for g in copies["groups"] for c in (g["kept"], *g["copies"])), *(p["cell"] for p in chosen)]
    assert sum(len(cell.picture) for cell in pictures) < 8e6 and copies["more"] == 500 - photo_part.SHOWN_GROUPS


def test_a_chart_draws_its_series_on_two_axes_and_marks_a_step():
    loss = Series("each step", range(1, 201), [1 - n / 400 for n in range(200)], look="raw")
    rate = Series("rate", range(1, 201), [1e-4] * 200, "right", "second")
    drawn = chart([loss, rate, Series("empty", [3], [1.0])], [Mark(50, "best: <50>"), Mark(900, "beyond")], "loss")
    assert drawn.count("<polyline") == 2 and "rate (right)" in drawn and "best: &lt;50&gt;" in drawn and "beyond" not in drawn
    assert 'class="tick right"' in drawn and "1e-04" in drawn.replace("0.0001", "1e-04")
    assert chart([Series("loss", [1], [0.5])]) == "" == chart([])
    broken = chart([Series("loss", range(5), [1, float("nan"), 2, float("inf"), 1])])
    assert "nan" not in broken and "inf" not in broken
    assert chart([Series("loss", range(5), [0.0] * 5)]) and chart([Series("loss", [7, 7], [1.0, 2.0])])


def test_a_long_line_keeps_its_leaps():
    values = np.zeros(50_000)
    values[31_234] = 9
    steps, thin = thinned(np.arange(50_000), values)
    assert len(steps) <= MOST_POINTS and 31_234 in steps and thin.max() == 9
    assert ticks(0, 1) == [0, 0.5, 1] or len(ticks(0, 1)) <= 6
    assert ticks(1, 1) == [] and ticks(0.02, 0.11)[0] >= 0.02


def test_photos_that_never_fit_are_named():
    random, names = np.random.default_rng(1), [f"{n}.jpg" for n in range(16)]
    for size in (1, 4):
        metrics = []
        for step in range(600):
            photos = [str(name) for name in random.choice(names, size, replace=False)]
            losses = [
                random.lognormal(0, 0.5) * (2.0 if name in ("3.jpg", "7.jpg") else 1) * (0.1 + 0.2 * np.exp(-step / 100)) for name in photos
            ]
            metrics.append({"step": step + 1, "loss": float(np.mean(losses)), "photos": photos})
        found = training_part.hard_photos(metrics, {})
        assert {name for name, _, _ in found} == {"3.jpg", "7.jpg"} and all(0.4 < excess < 1.6 for _, excess, _ in found), found
        assert all(20 < seen < 200 for _, _, seen in found) or size == 4
    fit = {"a.jpg": 1.0, "b.jpg": 2.5, "c.jpg": 0.9, "d.jpg": 1.8}
    assert training_part.hard_photos([], {"fit": fit, "visits": {"b.jpg": 9}}) == [("b.jpg", 1.5, 9), ("d.jpg", 0.8, 0)]
    alike = [{"step": n + 1, "loss": float(random.lognormal(0, 0.5)), "photos": [names[n % 16]]} for n in range(400)]
    assert training_part.hard_photos(alike, {}) == []


def test_the_command_makes_the_same_project_again(trained, tmp_path, monkeypatch):
    words = shlex.split(training_part.command(trained))
    assert words[:5] == ["lorakit", "run", "photos", "-o", "project"] and words[words.index("--trigger") :][:2] == ["--trigger", "zwx"]
    where = {"photos": str(trained.photos[0]), "project": str(tmp_path / "again"), "tiny-random": None}
    again = [where.get(word) or word for word in words[2:]]
    again[again.index("--weights") + 1] = trained.settings.train.weights
    done = CliRunner().invoke(run_command, [*again, "--until", "scan"])
    assert done.exit_code == 0, done.output
    ours, theirs = trained.settings.flat(), open_project(tmp_path / "again").settings.flat()
    assert {key: value for key, value in ours.items() if theirs[key] != value} == {}


def test_reasons_are_said_in_plain_words():
    assert in_words.in_words(Reason("reject", "blurry", 0.1234, 0.3)) == "blurred: 0.123, limit 0.3"
    assert in_words.in_words(Reason("reject", "too_bright", 0.928, 0.5)) == "blown out: 92.8 %, limit 50 %"
    assert in_words.in_words(Reason("reject", "duplicate", 0, 64)) == "the same file"
    assert in_words.in_words(Reason("warn", "no_red", 0.0001, 0.0004)) == "says red, which is not in it"
    assert in_words.in_words(Reason("warn", "my_own", 3, None)) == "my own: 3"
    named = set(
        re.findall(
            r"`([a-z_]+)`",
            " ".join(re.findall(r"^\| (`.+?) \| (?:reject|warn)", (DOCS / "curation.md").read_text(encoding="utf-8"), re.M)),
        )
    )
    assert len(named) > 30 and named <= in_words.WORDS.keys(), named - in_words.WORDS.keys()
