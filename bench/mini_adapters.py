"""What each adapter teaches `mini`: LoRA, DoRA, LoKr and a LoRA of the U-Net alone learn the toy robot, and are judged as
`bench/mini_quality.py` judges; then two LoRAs, a subject at 0.7 and a style at 0.5, are played together.

    python -m bench.mini_adapters                   # everything
    python -m bench.mini_adapters --only lokr       # one adapter
    python -m bench.mini_adapters --only stacked --set train.steps=400

DoRA and LoKr are loaded by adding the file's change to the weights, as ComfyUI and A1111 do: diffusers loads no LoKr, and
leaves DoRA's lengths out. A strength scales that change; of DoRA it mixes the base's weight and the new one, as ComfyUI does.
"""

import argparse
import copy
import json
import types
from pathlib import Path

import numpy as np
import torch

from bench.mini_quality import (
    MINI,
    SHOWN_TO_STYLE,
    Painter,
    ask_ordinary,
    ask_subject,
    in_style,
    same_as_base,
    score_ordinary,
    see_subject,
    share,
    teach,
)
from lorakit.lora_file.convert import open_network
from models.mini import base
from models.mini.world import OBJECTS

ADAPTERS = {
    "lora": [],
    "dora": ["train.adapter=dora"],
    "lokr": ["train.adapter=lokr", "train.lokr_factor=4"],
    "unet_alone": ["train.text_encoder=false", "train.text_encoder_rate="],
}
STRENGTHS = (0.0, 0.4, 0.7, 1.0)
STACK = (0.7, 0.5)  # subject, style


class Adder(Painter):
    """A painter whose LoRA files are added to the weights by the formulas of their formats, each at its strength."""

    def __init__(self, weights, *files):
        super().__init__(weights)
        self.networks = [open_network(path)[1] for path in files]
        parts = {"unet": self.pipeline.unet, "text_encoder": self.pipeline.text_encoder}
        self.layers = {f"{part}.{name}": module for part, model in parts.items() for name, module in model.named_modules()}
        self.untouched = {part: copy.deepcopy(model.state_dict()) for part, model in parts.items()}

    @torch.no_grad()
    def set_strength(self, strength):
        """None and 0 are the base; a number is every file's strength, several are one each."""
        for part, state in self.untouched.items():
            getattr(self.pipeline, part).load_state_dict(state)
        strengths = strength if isinstance(strength, tuple) else (strength or 0.0,) * len(self.networks)
        for network, one in zip(self.networks, strengths, strict=True):
            for path, change in network.items() if one else ():
                self._add(self._find(path), change, one)

    def _find(self, path):
        flat = path.replace(".text_model.", ".")  # transformers 5 has dropped this level
        return self.layers[path if path in self.layers else flat]

    def _add(self, module, change, strength):
        weight = module.weight
        old = weight.float().flatten(1)
        new = old + change.change() * (strength if change.magnitude is None else 1.0)
        if change.magnitude is not None:
            new = new * (change.magnitude.float() / new.norm(dim=1))[:, None]
            new = old + (new - old) * strength
        weight.copy_(new.reshape(weight.shape))


def judge_subject(weights, lora, args):
    """The subject's share over the strengths, without the trigger, and what ordinary prompts keep."""
    painter = Adder(weights, lora)
    prompts, without = ask_subject(args.count, args.trigger, args.class_word), ask_subject(args.count, "", args.class_word)
    shares = {str(strength): see_subject(painter, prompts, strength, "robot") for strength in STRENGTHS}
    plain, kept = score_ordinary(painter, args.count), score_ordinary(painter, args.count, 1.0)
    return {
        "robot with the trigger, by strength": shares, "robot with the class word alone, at 1.0": see_subject(painter, without, 1.0, "robot"),
        "ordinary prompts, base": plain["both"], "ordinary prompts at 1.0": kept["both"], "strength 0 is the base": same_as_base(painter, prompts[:8]),
        "bytes": lora.stat().st_size,
    }  # fmt: skip


def judge_stack(weights, subject, style, args):
    """Both at once: the robot in the style, and each alone with the other's file beside it. A judge that must say sepia or photo
    says photo of what is half sepia, so the style is also measured by how far it moves the pixels."""
    painter = Adder(weights, subject, style)
    robots = ask_subject(args.count, args.trigger, args.class_word)
    unseen = [asked for asked in ask_ordinary(args.count, 300) if asked[1] in OBJECTS[len(SHOWN_TO_STYLE) :]]
    styled, both = (
        [in_style(prompt, args.style_trigger) for prompt, _, _ in unseen],
        [in_style(prompt, args.style_trigger) for prompt in robots],
    )
    figures, painted = {}, {}
    for name, strength in (("base", None), ("subject alone", (STACK[0], 0.0)), ("style alone", (0.0, STACK[1])), ("both", STACK),
                           ("style alone at 1.0", (0.0, 1.0)), ("both, style at 1.0", (STACK[0], 1.0))):  # fmt: skip
        painted[name] = {
            what: painter.paint(prompts, strength) for what, prompts in (("robot", robots), ("style", styled), ("robot in style", both))
        }
        seen = {what: painter.look(pictures) for what, pictures in painted[name].items()}
        figures[name] = {
            "robot asked, robot seen": share(s["kind"] == "robot" for s in seen["robot"]),
            f"{args.style} asked, {args.style} seen": share(s["style"] == args.style for s in seen["style"]),
            "both asked, robot seen": share(s["kind"] == "robot" for s in seen["robot in style"]),
            f"both asked, {args.style} seen": share(s["style"] == args.style for s in seen["robot in style"]),
        }
    figures["of the way that the style goes at 1.0"] = {
        "alone": way(*(painted[name]["style"] for name in ("base", "style alone", "style alone at 1.0"))),
        "with the subject": way(*(painted[name]["robot in style"] for name in ("subject alone", "both", "both, style at 1.0"))),
    }
    if args.grid:
        base.save_grid(np.concatenate([pictures["robot in style"][:8] for pictures in painted.values()]), args.grid)
    return figures


def way(start, there, end):
    """How far pictures [n, ...] have gone from `start` towards `end`: 0 not at all, 1 all the way."""
    gone, whole = (np.asarray(pictures, dtype=np.float64) - np.asarray(start, dtype=np.float64) for pictures in (there, end))
    return round(float((gone * whole).sum() / (whole**2).sum()), 3)


def learn(args, what, trigger, class_word, settings, folder):
    """Trains through lorakit's command line; (the file, seconds)."""
    words = {
        "work": args.work / folder,
        "teach": what,
        "trigger": trigger,
        "class_word": class_word,
        "set": [*settings, *args.set],
        "device": args.device,
    }
    words["work"].mkdir(parents=True, exist_ok=True)
    return teach(types.SimpleNamespace(**words))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/mini_adapters"))
    parser.add_argument("--weights", type=Path, default=MINI / "weights")
    parser.add_argument("--only", choices=[*ADAPTERS, "stacked"])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every training")
    parser.add_argument("--style-set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the style's training")
    parser.add_argument("--count", type=int, default=100, help="prompts for each figure")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--trigger", default="zwx")
    parser.add_argument("--class-word", default="toy")
    parser.add_argument("--style", default="sepia")
    parser.add_argument("--style-trigger", default="qrv")
    parser.add_argument("--files", type=Path, nargs=2, metavar=("SUBJECT", "STYLE"), help="two LoRAs to stack, instead of teaching them")
    parser.add_argument(
        "--grid", type=Path, help="also write a picture: base, subject, style, both; then the style at 1.0 alone and with the subject"
    )
    args = parser.parse_args()
    figures, subject = {}, None
    if args.files:
        print(json.dumps(judge_stack(args.weights, *args.files, args), indent=2))
        return
    for name, settings in ADAPTERS.items():
        if args.only in (None, name) or (args.only == "stacked" and name == "lora"):
            file, seconds = learn(args, "robot", args.trigger, args.class_word, settings, name)
            subject = file if name == "lora" else subject
            if args.only != "stacked":
                figures[name] = {**judge_subject(args.weights, file, args), "seconds from photos to the file": round(seconds, 1)}
    if args.only in (None, "stacked"):
        style, _ = learn(args, args.style, args.style_trigger, None, args.style_set, "style")
        figures[f"stacked at {STACK[0]} and {STACK[1]}"] = judge_stack(args.weights, subject, style, args)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
