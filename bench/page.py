"""The page's figures on a large project, and its pictures for the docs:

    python -m bench.page [PHOTOS] [--keep FOLDER]
    python -m bench.page --pictures PROJECT       writes docs/page_*.jpg of a trained project, such as `make demo` leaves it

Makes a project of so many small photos (10,000) with measures, texts, copies and a training, without running a stage, opens it in
headless Chromium and prints: first paint, usable (cold, and warm: rows kept from the last time), frames a second while scrolling,
nodes in the page, how long a decision takes to be on the disk, and the server's memory. Wants playwright and a Chromium."""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from PIL import Image, ImageDraw

from lorakit.curate.check import measure
from lorakit.project import new_project

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
DRAWN = 60  # different pictures; the others are these with another number on them
THINGS = "a table,grass,sand,a wooden floor,concrete,snow,a red cloth,tiles,a shelf,a garden".split(",")
LIGHTS = "soft light,evening light,bright sunlight,studio light,at night,in fog".split(",")
GOALS = {
    "first paint, cold, s": 1.0, "usable, cold, s": 3.0, "usable, warm, s": 1.0, "frames a second": 55, "nodes": 400,
    "decision p95, ms": 50, "server, MB": 300,
}  # fmt: skip


def make(folder: Path, count: int) -> Path:
    """A project of `count` photos in `folder`, as the stages would have left it."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    chance = random.Random(1)
    drawn = [draw(chance) for _ in range(min(DRAWN, count))]
    for number, image in enumerate(drawn):
        image.save(folder / f"drawn_{number}.jpg", quality=88)
    measured = [measure(folder / f"drawn_{number}.jpg") for number in range(len(drawn))]
    settings = {"train.resolution": 512, "select.everything": False}
    project = new_project(folder / "project", photos, base="sd15", trigger="zwx", class_word="mug", settings=settings)
    project.manifest.replace([])
    lines = []
    for number in range(count):
        path = photos / f"IMG_{number:05d}.jpg"
        image = drawn[number % len(drawn)].copy()
        ImageDraw.Draw(image).text((12, 12), str(number), fill="white")
        image.save(path, quality=85)
        lines.append(json.dumps(record(number, path, measured[number % len(drawn)], chance, count)))
    (folder / "project/manifest.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder / "project"


def draw(chance: random.Random, size: tuple[int, int] = (480, 360)) -> Image.Image:
    top, below = (tuple(chance.randrange(40, 235) for _ in range(3)) for _ in range(2))
    image = Image.linear_gradient("L").resize(size)
    image = Image.composite(Image.new("RGB", size, top), Image.new("RGB", size, below), image)
    pen = ImageDraw.Draw(image)
    for _ in range(9):
        x, y, r = chance.randrange(size[0]), chance.randrange(size[1]), chance.randrange(14, 90)
        shape = pen.ellipse if chance.random() < 0.5 else pen.rectangle
        shape((x - r, y - r, x + r, y + r), fill=tuple(chance.randrange(256) for _ in range(3)))
    return image


def record(number: int, path: Path, measured: dict, chance: random.Random, count: int) -> dict:
    id = f"{number:032x}"
    measures = json.loads(json.dumps(measured["measures"]))
    measures["size"] = {"width": (width := chance.choice([480, 900, 1024, 2048, 4000])), "height": width * 3 // 4}
    measures["sharpness"]["sharpness"] = round(min(1.0, abs(chance.gauss(0.75, 0.25))), 4)
    measures["exposure"]["p99"] = chance.choice([90, 180, 220, 240, 250])
    text = f"a zwx mug on {chance.choice(THINGS)}, {chance.choice(LIGHTS)}" + (", " + ", ".join(chance.sample(THINGS, 3))) * (number % 3)
    chosen = chance.random() < 0.7
    copy = number % 17 == 16
    found = {
        "id": id, "file": path.name, "path": str(path), "bytes": path.stat().st_size, "modified": path.stat().st_mtime_ns, "hash": id,
        "measures": measures, "look": measured["look"], "phash": measured["phash"], "failed": {}, "done": {"scan": id, "check": "x"},
        "dedupe": {"of": f"{number - 1:032x}", "reason": "near_duplicate", "distance": 9} if copy else {"of": None},
        "select": {"selected": chosen and not copy, "reason": "varied"},
    }  # fmt: skip
    if chosen and not copy:
        found |= {
            "crop": {"box": [0, 0, 360, 360], "bucket": [512, 512]},
            "caption": {"sentence": text.replace("zwx ", ""), "tags": [], "by": "blip", "own": False, "box": [0, 0, 360, 360]},
            "text": text,
            "trigger": {"words": ["zwx"], "human": None, "rules": [], "tokens": len(text.split()) + 4, "cut": [], "agreement": round(chance.random(), 3)},
        }  # fmt: skip
    return found


def serve(project: Path) -> tuple[subprocess.Popen, str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "lorakit", "open", str(project), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    return server, server.stdout.readline().strip()


OBSERVE = "window.__paint = null; new PerformanceObserver(list => { for (const e of list.getEntries()) window.__paint ??= e.startTime }).observe({type: 'paint', buffered: true})"
SCROLL = """() => new Promise(done => { const box = document.querySelector('.scroll'); let frames = 0, begun = performance.now(), most = 0;
  const step = () => { frames++; box.scrollTop += 60; most = Math.max(most, document.querySelectorAll('*').length);
    performance.now() - begun < 3000 ? requestAnimationFrame(step) : done([frames / (performance.now() - begun) * 1000, most]); }; requestAnimationFrame(step); })"""
DECIDE = """async () => { const times = [], rows = (await (await fetch('./index')).json()).rows; for (let n = 0; n < 60; n++) { const begun = performance.now();
  const row = rows[n * 7]; await fetch('./decide', {method: 'POST', headers: {'x-lorakit': '1', 'content-type': 'application/json'},
  body: JSON.stringify({changes: [{ids: [row.id], what: 'verdict', was: row.human?.verdict ?? null, now: n % 2 ? 'keep' : 'reject'}]})}); times.push(performance.now() - begun); } return times.sort((a, b) => a - b); }"""


def figures(project: Path) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    browser = next(found for name in BROWSERS if (found := shutil.which(name)))
    found: dict[str, float] = {}
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for round in ("cold", "warm"):
            server, address = serve(project)
            try:
                page = chromium.new_page(viewport={"width": 1440, "height": 900})
                page.add_init_script(OBSERVE)
                begun = time.perf_counter()
                page.goto(address)
                page.wait_for_function("() => [...document.querySelectorAll('.cell img')].some(i => i.complete && i.naturalWidth)")
                found[f"usable, {round}, s"] = time.perf_counter() - begun
                found[f"first paint, {round}, s"] = page.evaluate("() => window.__paint") / 1000
                time.sleep(4)
                found["frames a second"], found["nodes"] = page.evaluate(SCROLL)
                times = page.evaluate(DECIDE)
                found["decision p50, ms"], found["decision p95, ms"] = times[len(times) // 2], times[math.ceil(0.95 * len(times)) - 1]
                time.sleep(3)
                found["server, MB"] = psutil.Process(server.pid).memory_info().rss / 1e6
                if round == "cold":
                    time.sleep(14)  # the rows are kept for the next start
                page.close()
            finally:
                server.send_signal(2)
                server.wait(20)
        chromium.close()
    return found


PICTURES = {  # name: (place, width, scheme, what is done first)
    "photos": ("photos", 1440, "light", ()),
    "photo": ("photo/CHOSEN", 1440, "dark", ()),
    "crop": ("photo/CHOSEN", 1440, "light", ("c", "-", "-", "-", "-", "-", "-")),
    "copies": ("copies", 1440, "light", ()),
    "words": ("words", 1440, "light", ("click:.phrases li:nth-child(2) button", "click:.phrase button:text-is('Remove')")),
    "training": ("training", 1440, "light", ()),
    "results": ("results", 1440, "light", ("js:document.querySelector('.page').scrollTop = 330",)),
    "phone": ("photos", 390, "dark", ()),
}


def draw_pictures(project: Path, out: Path) -> None:
    """A picture of each view, as it is."""
    from playwright.sync_api import sync_playwright

    browser = next(found for name in BROWSERS if (found := shutil.which(name)))
    server, address = serve(project)
    try:
        with sync_playwright() as play:
            chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            for name, (place, width, scheme, steps) in PICTURES.items():
                size = {"width": width, "height": 844 if width < 600 else 900}
                page = chromium.new_context(viewport=size, color_scheme=scheme, device_scale_factor=1).new_page()
                page.goto(address)
                page.wait_for_selector(".cell img")
                chosen = page.evaluate("async () => (await (await fetch('./index')).json()).rows.filter(r => r.chosen)[4].id")
                page.evaluate("place => { location.hash = '#/' + place }", place.replace("CHOSEN", chosen))
                page.wait_for_timeout(2500)
                for step in steps:
                    kind, _, what = step.partition(":")
                    {"click": page.click, "js": page.evaluate}[kind](what) if what else page.keyboard.press(step)
                    page.wait_for_timeout(700)
                page.wait_for_timeout(1500)
                page.evaluate("() => [...document.querySelectorAll('.facts dt')].find(d => d.textContent === 'File')?.parentNode.remove()")
                page.screenshot(path=out / f"page_{name}.jpg", type="jpeg", quality=82)
                if name == "crop":  # which was decided by that
                    page.keyboard.press("0")
                    page.wait_for_timeout(1000)
            chromium.close()
    finally:
        server.send_signal(2)
        server.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="?", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="make the project here, or take the one that is here")
    parser.add_argument("--pictures", type=Path, help="draw the docs' pictures of this project instead")
    given = parser.parse_args()
    if given.pictures:
        draw_pictures(given.pictures, Path(__file__).parents[1] / "docs")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        project = folder / "project" if (folder / "project/project.yaml").is_file() else make(folder, given.photos)
        shutil.rmtree(project / "cache/page", ignore_errors=True)
        for name, value in figures(project).items():
            goal = GOALS.get(name)
            print(f"{name:<24}{value:>9.2f}" + (f"   goal {goal:g}" if goal else ""))


if __name__ == "__main__":
    main()
