"""What a file of this folder has: TITLE, `carried(train, words)`, the names of the `train` settings that it takes along for a base by its words, and
`write(handover, folder)`, which writes the trainer's own settings into the folder and returns the README's words on how to begin.
What it calls a base stands in the base's family, under the trainer's file name in OTHER_TRAINERS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorakit.project import Project
from lorakit.settings import Train
from lorakit.text import prompts

EVERYWHERE = {  # settings that have their part in the dataset or the base, whatever the trainer
    "weights", "parts", "steps", "steps_per_photo", "min_steps", "max_steps", "rank", "alpha", "resolution", "batch_size", "gradient_accumulation",
    "learning_rate", "seed", "precision", "checkpoint_every", "gradient_checkpointing", "caption_variants", "bucket_step", "max_grad_norm",
}  # fmt: skip
PRECISIONS = {"auto": "bf16", "fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Subset:
    """A sub-folder of pictures with the same number of repeats; masks of the same names lie in `masks`."""

    images: str
    repeats: int
    masks: str | None = None
    is_regularisation: bool = False


@dataclass(frozen=True)
class Handover:
    project: Project
    subsets: tuple[Subset, ...]
    steps: int
    name: str
    words: Mapping[str, Any]  # what this trainer calls the base's family, and which of its options that takes

    @property
    def train(self) -> Train:
        return self.project.settings.train

    @property
    def kept_tags(self) -> int:
        """Tags that stay in front where others are shuffled: those in front of every text, and `train.keep_tags` behind them."""
        return len(self.project.settings.caption.lead_tags) + self.train.keep_tags

    @property
    def own(self) -> list[Subset]:
        return [subset for subset in self.subsets if not subset.is_regularisation]

    @property
    def base(self) -> str:
        """What the trainer loads: the user's own weights, or the hub's."""
        return (self.train.weights or self.project.card.hub or self.project.card.name).removeprefix("hf://")

    @property
    def resolutions(self) -> list[int]:
        return sorted({self.train.resolution, *self.train.other_resolutions})

    @property
    def alpha(self) -> float:
        """Where the scale is alpha / rank; rsLoRA's is alpha / sqrt(rank)."""
        alpha = self.train.rank if self.train.alpha is None else self.train.alpha
        return float(alpha * self.train.rank**0.5 if self.train.rank_stabilised else alpha)

    @property
    def text_encoder_rate(self) -> float:
        return self.train.learning_rate if self.train.text_encoder_rate is None else self.train.text_encoder_rate

    @property
    def prompt(self) -> str:
        trigger = self.project.settings.trigger
        return " ".join(word for word in (trigger.word, trigger.class_word) if word) or self.project.kind.name

    @property
    def prompts(self) -> list[str]:
        """To draw while training."""
        given = self.project.settings.sample
        texts = [r["text"] for r in self.project.manifest.selected if r.get("dataset")]
        given_ones = prompts.read(given.prompts, self.project.folder, self.project.trigger)
        return [prompt.text for prompt in given_ones] or list(dict.fromkeys(texts))[: given.count]


def is_velocity(handover: Handover) -> bool:
    """Whether the base predicts velocity: by the settings, or as a single file says of itself."""
    if handover.train.prediction != "base":
        return handover.train.prediction == "v_prediction"
    from lorakit.bases import single_file

    source = handover.project.base_source
    if not source.configs:
        return False
    return single_file.open_source(source, handover.project.card.family).prediction == "v_prediction"


def filled(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty, none or off: another trainer's own default then holds."""
    return {key: value for key, value in mapping.items() if value not in (None, "", [], False)}
