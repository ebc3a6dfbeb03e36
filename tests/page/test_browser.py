"""The page in a browser, as a person uses it: by keys, over a restart, with slow answers, in two tabs, on a phone. Parts are found by
their accessible names; every test asks that nothing is fetched from elsewhere and that the browser has no complaint."""

import shutil
import socket
import threading
import time
from importlib import resources

import pytest
import uvicorn
from PIL import Image

import lorakit
from lorakit.page import server
from lorakit.page.guard import Rules
from lorakit.project import open_project
from tests.page.conftest import add_run, metrics_line

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'lorakit[test]'")
CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
TOKEN = "t" * 24
VIEWS = ("photos", "copies", "words", "training", "results")
A, B, C = "photo_0.jpg", "photo_1.jpg", "photo_2.jpg"


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Served:
    """The page of a project at one port, in a thread of this process, so that it can be stopped, begun again, and slow."""

    def __init__(self, folder):
        self.folder, self.delay = folder, 0.0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        app = server.build(self.folder, Rules(TOKEN, f"lorakit_{self.port}"))

        async def slow(scope, receive, send):
            if self.delay and scope.get("path") == "/decide":
                import asyncio

                await asyncio.sleep(self.delay)
            await app(scope, receive, send)

        config = uvicorn.Config(slow, port=self.port, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)

    def human(self, name):
        return next(r for r in open_project(self.folder).manifest if r["file"] == name).get("human", {})


@pytest.fixture
def served(curated):
    add_run(curated)
    found = Served(curated)
    yield found
    found.stop()


@pytest.fixture
def tab(chromium, served):
    """tab(width=390, scheme="dark") is a tab that is let in; at the end it must have had no complaint and asked nobody else."""
    contexts, complaints, asked = [], [], []

    def make(width=1280, height=800, scheme="light", path=""):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=width < 600)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" and "ERR_" not in said.text else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{served.address}/?token={TOKEN}")
        page.get_by_role("listbox", name="Photos").wait_for()
        if path:
            page.evaluate("path => { location.hash = path }", f"#/{path}")
        return page

    yield make
    for context in contexts:
        context.close()
    assert not [one for one in complaints if "409" not in one]
    assert all(url.startswith((served.address, "blob:")) for url in asked)


def cell(page, name):
    return page.get_by_role("option").filter(has_text=name).first


def wait(check, seconds=10):
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert check()


def test_a_verdict_by_keys_survives_a_reload_and_undo_a_restart(tab, served):
    page = tab()
    cell(page, A).click()
    page.keyboard.press("r")  # and goes on to the next
    page.keyboard.press("a")
    wait(lambda: served.human(A) == {"verdict": "reject"} and served.human(B) == {"verdict": "keep"})
    page.reload()
    cell(page, A).get_by_role("img", name="rejected, by hand").wait_for()
    served.stop()
    served.start()
    page.keyboard.press("Control+z")
    wait(lambda: served.human(B) == {})
    page.keyboard.press("Control+Shift+z")
    wait(lambda: served.human(B) == {"verdict": "keep"})


@pytest.mark.slow
def test_a_lost_connection_loses_no_edit(tab, served):
    page = tab(path=f"photo/{next(r['id'] for r in open_project(served.folder).manifest if r['file'] == A)}")
    page.get_by_label("Training text").wait_for()
    served.stop()
    page.get_by_label("Training text").fill("a zwx mug, written while nobody listened")
    page.get_by_role("alert").filter(has_text="No connection").wait_for()
    served.start()
    wait(lambda: served.human(A).get("text") == "a zwx mug, written while nobody listened")
    page.get_by_text("by hand, saved").wait_for()


@pytest.mark.slow
def test_going_on_fast_never_puts_a_text_under_the_next_photo(tab, served):
    """Answers come late, while the next texts are written already."""
    served.delay = 0.4
    page = tab()
    cell(page, A).dblclick()
    for number in range(4):
        page.get_by_role("heading", name=f"photo_{number}.jpg").wait_for()
        page.get_by_label("Training text").fill(f"a zwx mug, number {number}")
        page.keyboard.press("Control+Enter")
    wait(lambda: [served.human(f"photo_{n}.jpg").get("text") for n in range(4)] == [f"a zwx mug, number {n}" for n in range(4)])
    assert not served.human("photo_4.jpg")


@pytest.mark.slow
def test_two_tabs_that_write_the_same_text_show_both(tab, served):
    one, other = tab(), tab()
    for page in (one, other):
        cell(page, A).dblclick()
        page.get_by_label("Training text").wait_for()
        page.evaluate("document.hidden || Object.defineProperty(document, 'hidden', {get: () => true})")  # asks for no changes meanwhile
    one.get_by_label("Training text").fill("a zwx mug by one")
    wait(lambda: served.human(A).get("text") == "a zwx mug by one")
    other.get_by_label("Training text").fill("a zwx mug by the other")
    told = other.get_by_role("alert").filter(has_text="Changed elsewhere")
    told.get_by_text("a zwx mug by one").wait_for()
    assert served.human(A)["text"] == "a zwx mug by one"
    told.get_by_role("button", name="Take mine").click()
    wait(lambda: served.human(A)["text"] == "a zwx mug by the other")


@pytest.mark.slow
def test_a_crop_by_keys_is_what_the_dataset_holds(tab, served):
    page = tab()
    cell(page, A).dblclick()
    page.get_by_role("button", name="Crop").wait_for()
    page.keyboard.press("c")
    box = page.get_by_role("group", name="Crop")
    box.wait_for()
    before = box.get_attribute("aria-label")
    for key in ("-", "-", "Shift+ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    page.keyboard.press("Escape")
    wait(lambda: "crop" in served.human(A))
    crop = served.human(A)["crop"]
    assert ", ".join(map(str, crop["box"])) not in before
    project = open_project(served.folder)
    lorakit.walk(project, last="dataset")
    record = next(r for r in project.manifest if r["file"] == A)
    with Image.open(record["path"]) as photo:
        expected = photo.resize(tuple(crop["bucket"]), Image.Resampling.LANCZOS, box=tuple(crop["box"]))
    assert list(Image.open(project.dataset_folder / record["dataset"]["file"]).getdata()) == list(expected.getdata())


@pytest.mark.slow
def test_copies_are_settled_one_by_one_and_words_changed_as_shown(tab, served):
    page = tab(path="copies")
    page.get_by_text("Group 1 of 1").wait_for()
    page.keyboard.press("b")
    wait(lambda: "apart" in served.human("copy.jpg") and "apart" in served.human(A))
    page.keyboard.press("Control+z")
    wait(lambda: "apart" not in served.human(A))
    page.get_by_role("button", name="Accept all").click()
    wait(lambda: served.human("copy.jpg") == {"verdict": "reject"})
    page.get_by_role("link", name="Words").click()
    page.get_by_role("button", name="red scarf").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    page.get_by_label("filtered").check()
    page.get_by_text("2 texts would change").wait_for()
    page.get_by_role("button", name="Apply").click()
    wait(lambda: served.human(B).get("text", "red scarf").count("red scarf") == 0 and "at night" in served.human(B)["text"])


@pytest.mark.slow
def test_the_curve_grows_while_one_looks_and_stop_asks_the_training(tab, served):
    from lorakit.project import work

    run = next((served.folder / "runs").iterdir())
    page = tab(path="training")
    page.get_by_text("40 of 60").wait_for()
    with work.locked(served.folder, "train") as held:
        held.note_stage("train")
        with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(metrics_line(41))
        page.get_by_text("41 of 60").wait_for()
        page.get_by_role("button", name="Stop").click()
        wait(lambda: (run / "stop").is_file())
    page.get_by_role("link", name="Results").click()
    page.get_by_label("Step", exact=True).select_option("20")
    page.get_by_role("button", name="Pick", exact=True).click()
    wait(lambda: open_project(served.folder).manifest.decisions.pick(run.name) == {"step": 20, "strength": 0.8})


def test_names_and_texts_of_others_are_shown_as_text(tab, served):
    hostile = "<img src=x onerror=\"document.title='taken'\">"
    book = open_project(served.folder).manifest
    record = next(r for r in book if r["file"] == A)
    book.keep({**record, "file": hostile, "text": hostile + " \u202egpj \x1b[31m"})
    page = tab()
    cell(page, "<img src=x").dblclick()
    page.get_by_role("heading", name="<img src=x").wait_for()
    assert page.title() != "taken" and page.get_by_label("Training text").input_value().startswith("<img")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_barrier_or_scrolls_sideways(tab, scheme):
    """By axe, at the width of a desk in one scheme and of a phone in the other; targets are as large as a thumb there."""
    axe = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    phone = scheme == "dark"
    page = tab(width=390 if phone else 1280, height=844, scheme=scheme)
    page.evaluate(axe)
    for view in (*VIEWS, "photo"):
        if view == "photo":
            page.evaluate("location.hash = '#/photos'")
            first = cell(page, A)
            first.tap() if phone else first.dblclick()
            page.get_by_label("Training text").wait_for()
        else:
            page.evaluate("view => { location.hash = '#/' + view }", view)
            page.locator("main:not(:has(.busy))").wait_for()
        page.wait_for_timeout(250)
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], view
        found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 160)).join(' | '))")  # fmt: skip
        assert not found, f"{view}: {found}"
        if phone:
            small = page.evaluate("() => [...document.querySelectorAll('.bar nav a, main button:not(.chip, .phrases button, .sheet button, .small), .actions button')].filter(b => b.offsetHeight && b.offsetHeight < 40).map(b => b.outerHTML.slice(0, 120))")  # fmt: skip
            assert not small, f"{view}: {small}"
