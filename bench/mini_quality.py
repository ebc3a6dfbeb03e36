"""The figures of `mini`: what the base paints, what its autoencoder keeps, what a LoRA teaches it, how it captions.

    python -m bench.mini_quality                        # the base, its autoencoder, captioner and open_clip
    python -m bench.mini_quality --teach robot          # lorakit learns the toy robot from sample_data/, then is judged
    python -m bench.mini_quality --teach blueprint      # a style, from 14 renders of seven things; judged on the other five
    python -m bench.mini_quality --lora FILE            # a LoRA file that is there already; --style for a style

Two judges look: a classifier (`models/mini/classifier.py`), which names thing, colour and style, and for the robot one of landmarks
(`models/mini/landmarks.py`), which colours cannot fool; its shares stand beside those of real renders that show the robot's face. Both
were trained on renders alone. Held-out renders are made in the work folder.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from models.mini import base, blip, classifier, clip, judged, landmarks, renders, vae
from models.mini.geometry import march
from models.mini.shading import shade
from models.mini.styles import STYLES
from models.mini.world import COLOURS, OBJECTS, SURFACES, caption, draw_look, draw_scene

ROOT = Path(__file__).parents[1]
MINI = Path(base.__file__).parent
JUDGE = Path(__file__).with_name("mini_judge.safetensors")
LANDMARKS = Path(__file__).with_name("mini_landmarks.safetensors")
STRENGTHS = (0.0, 0.4, 0.7, 1.0)
DEMO = {"train.preservation": 1, "train.caption_dropout": 0.2, "sample.every": 0}  # as `make demo` has it
SHOWN_TO_STYLE, STYLE_PHOTOS, STYLE_SIDE = OBJECTS[:7], 14, 256
HELD_OUT = ("test", "toys_test", "subjects_test", "robots_test", "styles_test")


def ask_ordinary(count, seed=100):
    """Prompts of the world's own words with the thing and colour that each asks for."""
    rng = np.random.default_rng(seed)
    asked = []
    for i in range(count):
        kind, colour = OBJECTS[i % len(OBJECTS)], str(rng.choice(list(COLOURS)))
        article = "an" if colour[0] in "aeiou" else "a"
        place = SURFACES[str(rng.choice(list(SURFACES)))]
        asked.append((f"a photo of {article} {colour} {kind} {place}", kind, colour))
    return asked


def ask_subject(count, trigger, class_word, seed=200):
    """Prompts for the subject on every surface; without a trigger they name the class word alone."""
    rng = np.random.default_rng(seed)
    places = [SURFACES[str(name)] for name in rng.choice(list(SURFACES), count)]
    return [f"a photo of {' '.join(w for w in (trigger, class_word) if w)} {place}" for place in places]


class Painter:
    """The base, with or without a LoRA at some strength, and the judge that looks at what it paints."""

    def __init__(self, weights, lora=None):
        self.pipeline = StableDiffusionPipeline.from_pretrained(weights).to(torch.float32)
        self.pipeline.set_progress_bar_config(disable=True)
        self.judge = classifier.load_judge(JUDGE)
        self.landmarks = landmarks.load_landmarks(LANDMARKS)
        self.lora = lora
        if lora:
            self.pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="lora")

    def set_strength(self, strength):
        if self.lora and strength is None:
            self.pipeline.disable_lora()
        elif self.lora:
            self.pipeline.enable_lora()
            self.pipeline.set_adapters("lora", strength)

    def paint(self, prompts, strength=None, seed=1000):
        self.set_strength(strength)
        return base.sample(self.pipeline, prompts, seed)

    def look(self, pictures):
        """What each picture shows: the classifier's names, and under "robot" whether the landmarks say so."""
        seen, parts = classifier.name_pictures(self.judge, pictures), landmarks.find_parts(self.landmarks, enlarge(pictures))
        return [{**names, "robot": landmarks.is_robot(found)} for names, found in zip(seen, parts, strict=True)]


def enlarge(pictures):
    """Pictures of 64 px at 128, as the judge of landmarks wants them."""
    return pictures.repeat(renders.SIZE // pictures.shape[1], 1).repeat(renders.SIZE // pictures.shape[2], 2)


def share(hits):
    return round(float(np.mean(list(hits))), 3)


def score_ordinary(painter, count, strength=None, style="photo"):
    """Shares of ordinary prompts whose thing, colour, and both came out."""
    asked = ask_ordinary(count)
    seen = painter.look(painter.paint([prompt for prompt, _, _ in asked], strength))
    kind = [s["kind"] == k for s, (_, k, _) in zip(seen, asked, strict=True)]
    colour = [s["colour"] == c for s, (_, _, c) in zip(seen, asked, strict=True)]
    return {
        "thing": share(kind),
        "colour": share(colour),
        "both": share(np.logical_and(kind, colour)),
        "in style": share(s["style"] == style for s in seen) if style != "photo" else None,
    }


def score_subject(painter, args):
    """The subject's share with and without the trigger over the strengths, and what ordinary prompts keep."""
    with_trigger = ask_subject(args.count, args.trigger, args.class_word)
    without = ask_subject(args.count, "", args.class_word)
    figures = {"base, trigger": see_subject(painter, with_trigger, None, args.subject)}
    for strength in STRENGTHS:
        figures[f"trigger at {strength}"] = see_subject(painter, with_trigger, strength, args.subject)
    figures["class word alone at 1.0"] = see_subject(painter, without, 1.0, args.subject)
    plain, kept = score_ordinary(painter, args.count), score_ordinary(painter, args.count, 1.0)
    figures["ordinary prompts, base"], figures["ordinary prompts at 1.0"] = plain, kept
    figures["kept of the base's score"] = round(kept["both"] / max(plain["both"], 1e-6), 3)
    shares = [figures[f"trigger at {strength}"]["of real renders"] for strength in STRENGTHS]
    figures["monotone"] = all(a <= b + 0.02 for a, b in zip(shares, shares[1:], strict=False))
    figures["strength 0 is the base"] = same_as_base(painter, with_trigger[:8])
    return figures


def see_subject(painter, prompts, strength, subject):
    """Shares called the subject: by the classifier, and a robot's by its landmarks, as they are and as a share of what real renders get."""
    seen = painter.look(painter.paint(prompts, strength))
    named = share(s["kind"] == subject for s in seen)
    if subject != "robot":
        return {"classifier": named, "of real renders": named}
    found = share(s["robot"] for s in seen)
    return {"classifier": named, "landmarks": found, "of real renders": round(found / max(real_share(painter), 1e-6), 3)}


def real_share(painter, count=100):
    """The share of real renders, facing as the photos do, that the landmarks call a robot."""
    rng = np.random.default_rng(31)
    rows = [row for _ in range(count // judged.LOOKS) for row in judged.render_group(rng, "robot")]
    facing = np.stack([row[0] for row in rows if row[3]["eyes"] >= landmarks.FACING])
    return landmarks.share_of_robots(painter.landmarks, facing)


def same_as_base(painter, prompts):
    return bool((painter.paint(prompts, None) == painter.paint(prompts, 0.0)).all())


def in_style(prompt, trigger):
    """As lorakit words a style's captions."""
    return f"{prompt}, in the {trigger} style"


def score_style(painter, args):
    """Share of prompts in the style, and whether the thing is still there, with the LoRA and without; and what becomes of prompts that do
    not ask for the style."""
    asked = ask_ordinary(args.count, seed=300)
    if args.unseen:
        asked = [a for a in asked if a[1] in args.unseen]
    prompts = [in_style(prompt, args.trigger) for prompt, _, _ in asked]
    figures = {"strength 0 is the base": same_as_base(painter, prompts[:8])}
    for strength in (None, *STRENGTHS):
        seen = painter.look(painter.paint(prompts, strength))
        name = "base" if strength is None else f"at {strength}"
        figures[name] = {
            "in style": share(s["style"] == args.style for s in seen),
            "thing": share(s["kind"] == k for s, (_, k, _) in zip(seen, asked, strict=True)),
        }
    for name, strength in (("base", None), ("at 1.0", 1.0)):
        figures[f"not asked for it, {name}"] = score_ordinary(painter, args.count, strength, args.style)
    return figures


def save_strengths(painter, args):
    """The picture that shows it: a row for each strength with the trigger, then one without it."""
    if args.style:
        asked = [a for a in ask_ordinary(200, 300) if not args.unseen or a[1] in args.unseen][:8]
        with_trigger, without = [in_style(a[0], args.trigger) for a in asked], [a[0] for a in asked]
    else:
        with_trigger = ask_subject(8, args.trigger, args.class_word)
        without = [prompt for prompt, _, _ in ask_ordinary(8)]
    rows = [painter.paint(with_trigger, strength) for strength in STRENGTHS] + [painter.paint(without, 1.0)]
    base.save_grid(np.concatenate(rows), args.grid)


def render_style_photos(style, folder, seed=9):
    """Pictures of some of the things in one style, each with its caption beside it, as a person would gather them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(STYLE_PHOTOS):
        scene = draw_scene(rng, [SHOWN_TO_STYLE[i % len(SHOWN_TO_STYLE)]])
        look = draw_look(rng, scene)
        buffers = march(scene.things, scene.camera, scene.lights, STYLE_SIDE, STYLE_SIDE)
        picture = STYLES[style](shade(scene, look, buffers), buffers)
        Image.fromarray(renders.to_bytes(picture)).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(caption(scene, look, rng))


def teach(args):
    """Trains through lorakit's own command line; returns (the LoRA file, seconds)."""
    project = args.work / f"taught_{args.teach}"
    if args.teach in STYLES:
        photos = args.work / f"photos_{args.teach}"
        render_style_photos(args.teach, photos)
        command = ["train", photos, "--kind", "style"]
    else:
        command = ["run", ROOT / "sample_data" / "photos", "--kind", "object", "--class-word", args.class_word]
        command += [word for key, value in DEMO.items() for word in ("--set", f"{key}={value}")]
    command += ["-o", project, "--base", "mini", "--trigger", args.trigger, "--device", args.device]
    command += [word for pair in args.set for word in ("--set", pair)]
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lorakit", *map(str, command)], check=True, stdout=sys.stderr, cwd=ROOT)
    return max(project.glob("runs/*/*.safetensors"), key=lambda path: path.stat().st_mtime), time.perf_counter() - began


def score_base(args):
    """Figures 1, 2 and 6, which need no LoRA."""
    for split in HELD_OUT:
        renders.render_split(args.work, split)
    painter = Painter(args.weights)
    name, scenes, seed = judged.list_splits()[1]
    judged.render_judged(args.work, name, scenes, seed)
    return {
        "judge on held-out renders": classifier.measure(painter.judge, args.work),
        "landmarks on held-out renders": landmarks.measure(painter.landmarks, args.work),
        "landmarks, robots through the autoencoder": landmarks.through_autoencoder(painter.landmarks, painter.pipeline.vae, args.work),
        "base": score_ordinary(painter, args.count),
        "autoencoder, dB PSNR, things": round(vae.held_out_psnr(painter.pipeline.vae, args.work), 2),
        "autoencoder, dB PSNR, robots": round(vae.held_out_psnr(painter.pipeline.vae, args.work, "robots_test"), 2),
        "captioner": blip.measure(args.blip, args.work),
        "open_clip": clip.measure(args.clip, args.work),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/mini"), help="where held-out renders are kept")
    parser.add_argument("--weights", type=Path, default=MINI / "weights")
    parser.add_argument("--blip", type=Path, default=MINI / "blip")
    parser.add_argument("--clip", type=Path, default=MINI / "clip")
    parser.add_argument("--count", type=int, default=100, help="prompts for each figure")
    parser.add_argument("--teach", choices=["robot", *STYLES], help="train this with lorakit and judge the result")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of that training")
    parser.add_argument("--device", default="cpu", help="of that training")
    parser.add_argument("--lora", type=Path, help="a kohya- or diffusers-named LoRA file to judge")
    parser.add_argument("--trigger", default="zwx")
    parser.add_argument("--class-word", default="toy")
    parser.add_argument("--subject", default="robot", choices=list(classifier.HEADS["kind"]))
    parser.add_argument("--style", choices=classifier.HEADS["style"], help="the LoRA teaches this style, not a subject")
    parser.add_argument("--unseen", nargs="+", help="for a style: judge only these things, which it was not trained on")
    parser.add_argument("--grid", type=Path, help="also write a picture of strengths by prompts")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    seconds = None
    if args.teach:
        args.lora, seconds = teach(args)
    if args.teach in STYLES:
        args.style, args.unseen = args.teach, args.unseen or [kind for kind in OBJECTS if kind not in SHOWN_TO_STYLE]
    if not args.lora:
        figures = score_base(args)
    else:
        painter = Painter(args.weights, args.lora)
        figures = score_style(painter, args) if args.style else score_subject(painter, args)
        if args.grid:
            save_strengths(painter, args)
        if seconds:
            figures["seconds from photos to the file"] = round(seconds, 1)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
