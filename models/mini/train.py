"""Makes `mini` from nothing: renders, autoencoder, base, captioner, open_clip, judge, and then the files of this folder.

    python -m models.mini.train --work build/mini

On two cores it takes two to three hours, on a GPU minutes (give it fewer: every duration is a flag). Stop it at will:
started again with the same work folder it goes on where it was.
"""

import argparse
import shutil
from pathlib import Path

from models.mini import base, blip, classifier, clip, renders, vae

HERE = Path(__file__).parent
JUDGE = HERE.parents[1] / "bench" / "mini_judge.safetensors"


def publish(work):
    """Copies what was trained to where it is kept: weights/, blip/, clip/ and the bench's judge."""
    for name in ("weights", "blip", "clip"):
        shutil.rmtree(HERE / name, ignore_errors=True)
        shutil.copytree(work / name, HERE / name)
    shutil.rmtree(HERE / "weights" / "vae")
    base.AutoencoderKL.from_pretrained(work / "vae").half().save_pretrained(HERE / "weights" / "vae")
    shutil.copy(work / "judge.safetensors", JUDGE)


def train_all(args):
    """Every stage that has not left its result in the work folder yet."""
    work = args.work
    work.mkdir(parents=True, exist_ok=True)
    for split in renders.SPLITS:
        renders.render_split(work, split, workers=args.workers)
    if not (work / "latents.pt").exists():
        vae.train(work, args.vae_minutes, batch=12)
    if not (work / "judge.safetensors").exists():
        classifier.train(work, args.judge_minutes)
    if not (work / "blip" / "model.safetensors").exists():
        blip.train(work, args.blip_minutes)
    if not (work / "clip" / "open_clip_config.json").exists():
        clip.train(work, args.clip_minutes)
    if not (work / "samples_final.png").exists():
        base.train(work, args.base_minutes, args.batch, save_every=6, helpers=args.helpers)
        vae.refine(work, args.refine_minutes, batch=12)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/mini"), help="where renders and checkpoints are kept")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--vae-minutes", type=float, default=11)
    parser.add_argument("--base-minutes", type=float, default=80)
    parser.add_argument("--refine-minutes", type=float, default=5, help="for the autoencoder's decoder, after the base")
    parser.add_argument("--blip-minutes", type=float, default=14)
    parser.add_argument("--clip-minutes", type=float, default=15)
    parser.add_argument("--judge-minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=32, help="of the base; 256 suits a GPU")
    parser.add_argument("--helpers", type=int, default=0, help="more processes for the base, one for each spare core")
    parser.add_argument("--publish", action="store_true", help="only copy what the work folder holds")
    args = parser.parse_args()
    if not args.publish:
        train_all(args)
    publish(args.work)


if __name__ == "__main__":
    main()
