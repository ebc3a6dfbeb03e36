"""`lorakit verify`: which keys of a LoRA file each tool will load."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lorakit.console import safe

INCOMPLETE = 1  # exit code when a tool that was asked about leaves something out, or the file has a fault
SHOWN = 5  # layers with faults


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--for", "tools", metavar="TOOLS", help="Of comfyui, a1111, forge, diffusers; with commas between.  [default: all]")
def command(file, tools) -> None:
    """Count the keys of FILE that each tool will load and name the rest; leaves with 1 when a tool of --for leaves some out,
    or a layer has a fault (half of it, NaN, fp8)."""
    from lorakit.lora_file import faults, verify

    wanted = tuple(tool.strip() for tool in tools.split(",")) if tools else verify.TOOLS
    family, judgements = verify.judge_file(file, wanted)
    click.echo(f"{'base':<10} {verify.base_in_words(family, verify.read_shapes(file))}")
    for judgement in judgements:
        for line in verify.in_words(judgement):
            click.echo(safe(line))
    wrong = faults.find_faults(file)
    for fault in wrong[:SHOWN]:
        click.echo(safe(f"{'fault':<10} {fault}"))
    if len(wrong) > SHOWN:
        click.echo(f"{'':<10} and {len(wrong) - SHOWN} more layers with faults")
    if wrong:
        sys.exit(INCOMPLETE)
    if not all(judgement.is_whole for judgement in judgements) and (tools or not any(j.is_whole for j in judgements)):
        sys.exit(INCOMPLETE)
