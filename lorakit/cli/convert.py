"""`lorakit convert`: LoRA files into another format, another rank, or several into one."""

from __future__ import annotations

from pathlib import Path

import click

from lorakit.console import typed


@click.command("convert")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The file to write; never one that is there.")
@click.option("--to", "format", type=click.Choice(("kohya", "diffusers")), required=True, help="Names in the file.")
@click.option("--rank", type=click.IntRange(min=1), help="Make it of this rank, as near as it can be.")
@click.option("--strength", "strengths", multiple=True, type=float, help="Of each file, repeatable, in their order.")
@click.option("--no-metadata", is_flag=True, help="Write the tensors alone, without a header.")
def command(files, out, format, rank, strengths, no_metadata) -> None:
    """Write one LoRA file from FILES. Several are merged; nothing is lost but what a lower --rank cannot hold.

    LoKr and LoHa are carried as they are; with --rank they become plain LoRA, and can be merged.
    """
    from lorakit.lora_file.convert import convert
    from lorakit.train.bare_base import try_in_diffusers

    tried = []
    family = convert(
        files,
        out,
        format,
        rank,
        strengths,
        not no_metadata,
        lambda part, network, family: tried.append(try_in_diffusers(part, network, family)),
    )
    click.echo(f"{out}  ({family}, {format}; {tried[0]}; `lorakit verify {typed(out)}` says who loads it)")
