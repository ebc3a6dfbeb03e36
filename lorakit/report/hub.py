"""The finished LoRA as a repository of the Hugging Face hub: a folder with the file, its samples and a model card, and its
upload."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

from lorakit import files
from lorakit.console import say, typed
from lorakit.errors import LorakitError
from lorakit.project import Project, runs, stamps
from lorakit.project.runs import Run
from lorakit.report.answers import strength_of

LICENCES = {  # as the hub writes them, by the words of the cards
    "Apache-2.0": "apache-2.0", "CreativeML Open RAIL-M": "creativeml-openrail-m", "CreativeML Open RAIL++-M": "openrail++",
}  # fmt: skip
MOST_SAMPLES = 4


def check_access(repo: str) -> None:
    """Before hours of work: is `repo` a name such as owner/name, and does the hub know who asks? Raises `LorakitError`."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise LorakitError(f"--push-to-hub {repo}: {_first_line(error)}") from None
    if repo.count("/") != 1:
        raise LorakitError(f"--push-to-hub {repo}: write it as owner/name")
    try:
        HfApi().whoami()
    except Exception as error:  # offline, no token, a wrong one: each with the hub's own words
        raise LorakitError(
            f"--push-to-hub {repo}: the hub cannot be used ({_first_line(error)}); connect and `hf auth login`, or leave it out"
        ) from None


def push(project: Project, repo: str) -> str:
    """Upload the project's finished LoRA; returns its address. A new repository is private: its owner opens it. Raises
    `LorakitError`, with where the folder lies ready, when the hub does not take it."""
    from huggingface_hub import HfApi

    folder = write_repository(project, repo)
    try:
        address = HfApi().create_repo(repo, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message=f"LoRA for {project.card.title}")
    except Exception as error:
        raise LorakitError(f"{repo}: not uploaded ({_first_line(error)}); all is ready in {folder}: `hf upload {repo} {folder}`") from None
    say("hub       uploaded; a new repository is private, its owner opens it in its settings")
    return str(address)


def write_repository(project: Project, repo: str) -> Path:
    """`runs/<time>/hub/` with the LoRA, up to four samples and README.md; photos, captions and settings stay at home."""
    run = runs.find(project.folder, stamps.train(project))
    lora = run.lora if run else None
    if run is None or lora is None:
        raise LorakitError(
            f"{project.folder}: no LoRA is written yet with these settings; `lorakit run -o {typed(project.folder)}` makes it"
        )
    folder, pictures = run.folder / "hub", runs.drawn(run.samples / "final", "_lora.png")[:MOST_SAMPLES]
    shutil.rmtree(folder, ignore_errors=True)

    def fill(part: Path) -> None:
        shutil.copyfile(lora, part / lora.name)
        for picture in pictures:
            (part / "images").mkdir(exist_ok=True)
            shutil.copyfile(picture, part / "images" / picture.name)
        (part / "README.md").write_text(model_card(project, run, repo, [p.name for p in pictures]), encoding="utf-8")

    files.write_folder(folder, fill)
    return folder


def model_card(project: Project, run: Run, repo: str, pictures: list[str]) -> str:
    """README.md: the hub's own header, then what the LoRA draws, its trigger, strengths, base, licence and training."""
    from huggingface_hub import ModelCardData

    card, trigger = project.card, project.trigger
    lora, strength = str(run.facts["result"]["lora"]), strength_of(project, run.facts["result"])
    about: dict[str, Any] = _licence(card.licence) | ({"instance_prompt": trigger} if trigger else {})
    hub = base_on_hub(project)
    header = ModelCardData(
        base_model=hub, library_name="diffusers", pipeline_tag="text-to-image", tags=["lora", "text-to-image", "lorakit"],
        widget=[{"text": prompt, "output": {"url": f"images/{name}"}} for name, prompt in _captions(run, pictures)] or None,
        **about,
    )  # fmt: skip
    base = f"[{card.title}](https://huggingface.co/{hub})" if hub else card.title
    word = f"Write `{trigger}` into the prompt." if trigger else "It has no trigger word: it acts on every prompt."
    return "\n".join([
        f"---\n{header.to_yaml()}\n---", "", f"# {_plain(Path(lora).stem)}", "",
        f"{project.kind.title} LoRA for {base}. {word}", "",
        *(f"![{_plain(prompt)}](images/{name})" for name, prompt in _captions(run, pictures)), "",
        "## Strength", "",
        f"Begin at {strength:g}; lower towards 0.4 where it takes over the picture, raise towards 1.0 where it is too faint.", "",
        "## Use", "", f"In ComfyUI, A1111 or Forge, put `{lora}` into the folder of LoRAs. In diffusers:", "",
        "```python", *_python(project, run, repo), "```", "",
        "## Training", "", *(f"- {name}: {value}" for name, value in _facts(project, run).items()), "",
        "## Licence", "", f"The base is under the {card.licence}, which holds for what is made with it too.", "",
    ])  # fmt: skip


def base_on_hub(project: Project) -> str | None:
    """The base's hub id: the one that was trained on, or the card's."""
    source = project.base_source
    return project.card.hub if source.is_local else source.location


def _captions(run: Run, pictures: list[str]) -> list[tuple[str, str]]:
    """(picture, prompt that drew it)."""
    prompts = run.facts["result"].get("prompts", [])
    return [(name, prompts[int(number[0])]) for name in pictures if (number := re.match(r"\d+", name)) and int(number[0]) < len(prompts)]


def _licence(words: str) -> dict[str, str]:
    known = LICENCES.get(words)
    return {"license": known} if known else {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-")}


def _python(project: Project, run: Run, repo: str) -> list[str]:
    prompt = (run.facts["result"].get("prompts") or [project.trigger or "a photo"])[0]
    return [
        "import torch", "from diffusers import AutoPipelineForText2Image", "",
        f'pipeline = AutoPipelineForText2Image.from_pretrained("{base_on_hub(project) or "the base"}", torch_dtype=torch.float16).to("cuda")',
        f'pipeline.load_lora_weights("{repo}", weight_name="{run.facts["result"]["lora"]}", adapter_name="lora")',
        f'pipeline.set_adapters("lora", {strength_of(project, run.facts["result"]):g})', f"picture = pipeline({prompt!r}).images[0]",
    ]  # fmt: skip


def _facts(project: Project, run: Run) -> dict[str, Any]:
    train, result = project.settings.train, run.facts["result"]
    return {
        "photos": result["photos"], "steps": result["steps"], "adapter": f"{train.adapter}, rank {train.rank}, on {train.targets}",
        "learning rate": f"{train.learning_rate:g}, {train.lr_schedule}, {train.optimizer}",
        "resolution": f"{train.resolution} px", "seed": train.seed,
    }  # fmt: skip


def _plain(words: str) -> str:
    """Captions are others' words: in the page that the hub shows they are neither HTML nor Markdown."""
    return re.sub(r"([\\`*_\[\]!|~])", r"\\\1", html.escape(" ".join(words.split())))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:160]
