"""Predicts what a training step needs of a card, by running it on fake tensors: the rows of `memory` in the cards of bases.

    python -m bench.memory --base sdxl            # prints the rows of this card
    python -m bench.memory --all --out rows.json  # of the usual bases, the most wanted first; goes on where it was stopped
    python -m bench.memory --table                # what the usual cards would be given, as docs/memory.md has it

Takes seconds to minutes a row and no card. Activations are of batch 1 with the card's own targets, all else by arithmetic.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lorakit import files, settings
from lorakit.bases import families
from lorakit.project import catalog
from lorakit.train import rungs, standing
from lorakit.train.memory import Shape, predict_step
from lorakit.weights import quiet_libraries

BASES = ("sd15", "sdxl", "flux1-dev", "sd35-medium", "z-image", "krea2")
ROUNDS = (("bf16", True), ("bf16", False))  # (how the base is held, checkpointing): fewer bits change weights, not activations
CARDS = (4, 6, 8, 12, 16, 24)  # GB
GB = 2**30


def row(base: str, held: str, checkpointing: bool) -> dict:
    """One row: GB of activations, and beside it what it was predicted from."""
    card = catalog.card(base)
    changes = {"train.base_precision": held, "train.gradient_checkpointing": checkpointing}
    train = settings.resolve([("card", card.settings), ("bench", changes)]).train
    cls = families.load(card.family)
    found = predict_step(cls, dict(cls.CONFIG), train, Shape(1, train.resolution, train.resolution))
    return {
        "resolution": train.resolution, "held": held, "checkpointing": checkpointing, "activations": round(found.activations / GB, 3),
        "peak": round(found.peak / GB, 3), "weights": round(found.weights / GB, 3), "adapter": round(found.adapter / GB, 3),
        "optimizer": round(found.optimizer / GB, 3),
    }  # fmt: skip


def table(bases: Iterable[str]) -> Iterator[str]:
    """What `lorakit train --plan --vram` says of the usual bases and cards, as a table; predicted from the cards' rows."""
    yield "| base | card (GB) | turned on | peak, predicted | x 1.1 | budget | fits | peak, measured |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in bases:
        card = catalog.card(name)
        train = settings.resolve([("card", card.settings)]).train
        base = rungs.Base(card, dict(families.load(card.family).CONFIG))
        for vram in CARDS:
            found = rungs.fit(base, train, vram - rungs.CONTEXT, frozenset({"train.optimizer", "train.swap_blocks"}))
            on = ", ".join(f"{key.removeprefix('train.')}={value}" for key, value in found.rungs.items()) or "nothing"
            fits = "yes" if found.is_enough else f"**no**: {' or '.join(standing.suggestions(base, found)) or 'nothing would'}"
            yield (f"| {name} | {vram} | {on} | {found.need.peak:.1f} | {found.need.card:.1f} | {found.budget:.1f} | {fits} | not yet |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=BASES, action="append")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    quiet_libraries()
    if options.table:
        for line in table(options.base or BASES):
            print(line, flush=True)
        return
    bases = BASES if options.all else options.base or parser.error("--base, --all or --table")
    rows: dict[str, list[dict]] = json.loads(options.out.read_text()) if options.out and options.out.is_file() else {}
    for held, checkpointing in ROUNDS:
        for base in bases:
            if any((r["held"], r["checkpointing"]) == (held, checkpointing) for r in rows.get(base, ())):
                continue
            began = time.perf_counter()
            rows.setdefault(base, []).append(row(base, held, checkpointing))
            print(f"{base}: {json.dumps(rows[base][-1])}  # {time.perf_counter() - began:.0f} s", flush=True)
            if options.out:
                files.write_json(options.out, rows)


if __name__ == "__main__":
    main()
