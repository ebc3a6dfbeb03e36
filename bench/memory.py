"""Predicts what a training step needs of a card, by running it on fake tensors: the rows of `memory` in the cards of bases.

    python -m bench.memory --base sdxl            # prints the rows of this card
    python -m bench.memory --all --out rows.json  # of all bases on the hub; goes on where it was stopped
    python -m bench.memory --page                 # what a step takes at 512 and 1024 px, as docs/bases.md has it
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

BASES = (
    "sd15",
    "sdxl",
    "flux1-dev",
    "sd35-medium",
    "chroma",
    "z-image",
    "flux2-klein-4b",
    "flux2-klein-9b",
    "flux2-dev",
    "krea2",
    "qwen-image",
    "anima",
)
ROUNDS = (
    (None, True),
    (None, False),
    (512, True),
)  # (resolution, else the card's own; checkpointing), of bf16: fewer bits change weights alone
CARDS = (4, 6, 8, 12, 16, 24)  # GB
GB = 2**30


def row(base: str, resolution: int | None, checkpointing: bool) -> dict:
    """One row: GB of activations, and beside it what it was predicted from."""
    card = catalog.card(base)
    own = card.settings["train.resolution"]
    changes = {"train.base_precision": "bf16", "train.gradient_checkpointing": checkpointing, "train.resolution": resolution or own}
    train = settings.resolve([("card", card.settings), ("bench", changes)]).train
    cls = families.load(card.family)
    found = predict_step(cls, cls.config_of(base), train, Shape(1, train.resolution, train.resolution))
    return {
        "resolution": train.resolution, "checkpointing": checkpointing, "activations": round(found.activations / GB, 3),
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
        base = rungs.Base(card, families.load(card.family).config_of(name))
        for vram in CARDS:
            found = rungs.fit(base, train, vram - rungs.CONTEXT, frozenset({"train.optimizer", "train.swap_blocks"}))
            on = ", ".join(f"{key.removeprefix('train.')}={value}" for key, value in found.rungs.items()) or "nothing"
            fits = "yes" if found.is_enough else f"**no**: {' or '.join(standing.suggestions(base, found)) or 'nothing would'}"
            yield (f"| {name} | {vram} | {on} | {found.need.peak:.1f} | {found.need.card:.1f} | {found.budget:.1f} | {fits} | not yet |")


def page(bases: Iterable[str]) -> Iterator[str]:
    """How much a step takes with checkpointing, in bf16 / fp8 / NF4, as the table of docs/bases.md has it: `base | GB at 512 px | at 1024 px |`."""
    for name in bases:
        card = catalog.card(name)
        base = rungs.Base(card, families.load(card.family).config_of(name))
        adapter = base.adapter(settings.resolve([("card", card.settings)]).train)
        counted = {row["resolution"] for row in card.memory if row["checkpointing"]}
        cells = []
        for side in (512, 1024):
            held = [_peak(base, side, precision, adapter) for precision in ("bf16", "fp8", "nf4")] if side in counted else []
            cells.append(" / ".join(f"{peak:.1f}" for peak in held) or "-")
        yield f"| `{name}` | {cells[0]} | {cells[1]} |"


def _peak(base: rungs.Base, side: int, precision: str, adapter: float) -> float:
    changes = {"train.resolution": side, "train.base_precision": precision, "train.gradient_checkpointing": "on"}
    return rungs.need(base, settings.resolve([("card", base.card.settings), ("bench", changes)]).train, adapter).peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=[card.name for card in catalog.cards()], action="append")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    quiet_libraries()
    on_the_hub = [card.name for card in catalog.cards() if card.hub]
    if options.table or options.page:
        for line in table(options.base or BASES) if options.table else page(options.base or on_the_hub):
            print(line, flush=True)
        return
    bases = on_the_hub if options.all else options.base or parser.error("--base, --all, --page or --table")
    rows: dict[str, list[dict]] = json.loads(options.out.read_text()) if options.out and options.out.is_file() else {}
    for resolution, checkpointing in ROUNDS:
        for base in bases:
            side = resolution or catalog.card(base).settings["train.resolution"]
            if any((r["resolution"], r["checkpointing"]) == (side, checkpointing) for r in rows.get(base, ())):
                continue
            began = time.perf_counter()
            rows.setdefault(base, []).append(row(base, resolution, checkpointing))
            print(f"{base}: {json.dumps(rows[base][-1])}  # {time.perf_counter() - began:.0f} s", flush=True)
            if options.out:
                files.write_json(options.out, rows)


if __name__ == "__main__":
    main()
