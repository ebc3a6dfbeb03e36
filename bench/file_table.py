"""Family x adapter x format: the keys that lorakit writes, the layers that diffusers holds after loading the file (and whether
their change is the trained one), and the keys that each tool loads by `lorakit verify`'s rules. As a Markdown table.

    python -m bench.file_table [--families sd15,sdxl,sd3,flux1]

On tiny random bases in the layouts of the real ones; the counts of layers are theirs, the names are the real bases'.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from lorakit.bases import families as all_families
from lorakit.bases import layer_names, tiny_random
from lorakit.errors import LorakitError
from lorakit.lora_file import formats, verify
from lorakit.settings import Train
from lorakit.train import export, lora
from lorakit.weights import Source

ROOT = Path(__file__).parents[1]
ADAPTERS = {
    "LoRA": {}, "LoRA + conv": {"targets": "conv"}, "LoRA + text encoders": {"text_encoder": True},
    "LoRA + text encoders + T5": {"text_encoder": True, "t5": True}, "LoRA, ranks by block": {"block_ranks": ("0=6/2",)},
    "DoRA": {"adapter": "dora"}, "LoKr": {"adapter": "lokr"}, "LoHa": {"adapter": "loha"}, "PiSSA": {"init": "pissa"},
}  # fmt: skip


def build_bases(families, folder):
    """{family: folder of a tiny base}."""
    from tests.tiny_bases import build

    for family in families:
        if family == "sd15":
            tiny_random.build(folder / family)
        else:
            build(family, folder / family)
    return {family: folder / family for family in families}


def load(family, folder, settings):
    cls = all_families.load(family)
    return cls(Source(str(folder), True), "cpu", torch.float32, settings)


def trained(family, settings):
    """The network of an adapter after a step in any direction."""
    generator = torch.Generator().manual_seed(0)
    parameters = lora.add_lora(family, settings)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return formats.with_uniform_alpha(formats.from_adapter(lora.read_lora(family)))


def held_by_diffusers(path, network, base):
    """'192 of 192': the layers whose change in diffusers is the file's, or what it says."""
    try:
        export.load_in_diffusers(path, network, base)
    except KeyError:  # looked for DoRA's lengths in a layer that has none
        return "all, without DoRA's lengths"
    except AssertionError:  # diffusers splits FLUX' fused layers at the widths of the real base alone
        return "at the real widths, in tests/train/test_formats.py"
    except (LorakitError, ValueError, RuntimeError, AttributeError, NotImplementedError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        return "no: " + line.removeprefix(f"{path}: ").removesuffix("; please report this")[:70]
    return f"{len(network)} of {len(network)}"


def rows(family, folder, work):
    for adapter, options in ADAPTERS.items():
        if (
            options.get("targets") == "conv"
            and layer_names.denoiser_folder(family) == "transformer"
            or "t5" in options
            and not all_families.load(family).t5_encoders()
        ):
            continue
        settings = Train(**{"rank": 4, "targets": "mlp", **options})
        network = trained(load(family, folder, settings), settings)
        for format in formats.FORMATS:
            path = work / f"{family}_{len(list(work.iterdir()))}.safetensors"
            try:
                tensors = formats.write(network, family, format, torch.float16)
            except LorakitError as error:
                yield f"| {family} | {adapter} | {format} | {len(network)} | refused: {str(error)[:60]} | | | | | |"
                continue
            save_file(tensors, path)
            export.check_file(path, network, family)
            _, judged = verify.judge_file(path, family=family)
            held = held_by_diffusers(path, network, load(family, folder, settings))
            counts = " | ".join(str(len(judgement.loaded)) for judgement in judged)
            yield f"| {family} | {adapter} | {format} | {len(network)} | {len(tensors)} | {held} | {counts} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(all_families.names()))
    families = parser.parse_args().families.split(",")
    print(f"| family | adapter | format | layers | keys written | layers in diffusers | {' | '.join(verify.TOOLS)} |")
    print("|---" * (6 + len(verify.TOOLS)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        bases = build_bases(families, Path(folder))
        (work := Path(folder) / "files").mkdir()
        for family, base in bases.items():
            for row in rows(family, base, work):
                print(row, flush=True)


if __name__ == "__main__":
    main()
