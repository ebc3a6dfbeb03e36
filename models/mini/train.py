"""Makes `mini` from nothing: renders, autoencoder, judges, base, captioner, open_clip, and then the files of this folder.

    python -m models.mini.train --work build/mini --helpers 1

On two cores it takes some seven hours (predicted), nearly all of it the base; on a GPU minutes (every count is a flag). Stop it at will: started
again with the same work folder it goes on where it was, never more than a few minutes back. Each stage says how far it is and how
long it still takes. `--only base` runs one stage.
"""

import argparse
import json
import shutil
from pathlib import Path

from models.mini import base, blip, classifier, clip, landmarks, renders, vae
from models.mini.budget import load_checkpoint

HERE = Path(__file__).parent
BENCH = HERE.parents[1] / "bench"


def publish(work):
    """Copies what was trained to where it is kept: weights/, blip/, clip/ and the bench's two judges."""
    for name in ("weights", "blip", "clip"):
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(work / name, HERE / name)
    shutil.rmtree(HERE / "weights" / "vae")
    base.AutoencoderKL.from_pretrained(work / "vae").half().save_pretrained(HERE / "weights" / "vae")
    for path in HERE.rglob("config.json"):  # diffusers notes where a part was loaded from, which is a folder of this machine
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None):
            path.write_text(json.dumps(config, indent=2) + "\n")
    shutil.copy(work / "judge.safetensors", BENCH / "mini_judge.safetensors")
    shutil.copy(work / "landmarks.safetensors", BENCH / "mini_landmarks.safetensors")


def seen(path):
    """How many pictures a resumable stage has seen."""
    return load_checkpoint(path)["seen"] if path.exists() else 0


def render_all(args):
    for split in renders.SPLITS:
        renders.render_split(args.work, split, workers=args.workers)


def train_vae(args):
    if seen(args.work / "vae.pt") < args.crops:
        vae.train(args.work, args.crops)


def train_landmarks(args):
    if not (args.work / "landmarks.safetensors").exists():
        landmarks.train(args.work, args.landmark_pictures)


def train_base(args):
    if not (args.work / "samples_final.png").exists():
        base.train(args.work, args.sketches, args.pictures, args.batch, helpers=args.helpers)


def train_classifier(args):
    if not (args.work / "judge.safetensors").exists():
        classifier.train(args.work, args.judge_minutes)


def train_blip(args):
    if not (args.work / "blip" / "model.safetensors").exists():
        blip.train(args.work, args.blip_minutes)


def train_clip(args):
    if not (args.work / "clip" / "open_clip_config.json").exists():
        clip.train(args.work, args.clip_minutes)


STAGES = {  # in this order; blip learns from the classifier
    "renders": render_all,
    "vae": train_vae,
    "landmarks": train_landmarks,
    "classifier": train_classifier,
    "blip": train_blip,
    "clip": train_clip,
    "base": train_base,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/mini"), help="where renders and checkpoints are kept")
    parser.add_argument("--only", choices=STAGES, help="one stage, and nothing is published")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--crops", type=int, default=400_000, help="of 64 px that the decoder sees")
    parser.add_argument("--sketches", type=int, default=700_000, help="pictures of half the size that the base sees first")
    parser.add_argument("--pictures", type=int, default=420_000, help="whole ones that it sees then")
    parser.add_argument("--batch", type=int, default=16, help="of the base; 256 suits a GPU")
    parser.add_argument("--helpers", type=int, default=0, help="more processes for the base, one for each spare core")
    parser.add_argument("--landmark-pictures", type=int, default=60_000, help="that the judge of landmarks sees")
    parser.add_argument("--blip-minutes", type=float, default=52)
    parser.add_argument("--clip-minutes", type=float, default=15)
    parser.add_argument("--judge-minutes", type=float, default=43)
    parser.add_argument("--publish", action="store_true", help="only copy what the work folder holds")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.only:
        STAGES[args.only](args)
        return
    if not args.publish:
        for stage in STAGES.values():
            stage(args)
    publish(args.work)


if __name__ == "__main__":
    main()
