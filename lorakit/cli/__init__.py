"""The command line: one file of this folder per verb, imported only when its verb is used or its help is asked for."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from lorakit import __version__

ORDER = (
    "run",
    "curate",
    "caption",
    "train",
    "sample",
    "grid",
    "export",
    "judge",
    "report",
    "status",
    "open",
    "review",
    "pick",
    "undo",
    "history",
    "words",
    "show",
    "bases",
    "kinds",
    "captioners",
    "doctor",
    "help",
)


class Verbs(click.Group):
    """Finds `lorakit <verb>` in the file of that name."""

    def list_commands(self, context: click.Context) -> list[str]:
        there = {path.stem for path in Path(__file__).parent.glob("*.py")} - {"__init__", "options"}
        return [verb for verb in ORDER if verb in there] + sorted(there - set(ORDER))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(context):
            return None
        return importlib.import_module(f"lorakit.cli.{name}").command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Each verb with its whole first sentence, where click would cut it to the line."""
        commands = [(verb, self.get_command(context, verb)) for verb in self.list_commands(context)]
        with formatter.section("Commands"):
            formatter.write_dl([(verb, command.get_short_help_str(limit=1000)) for verb, command in commands if command])

    def resolve_command(self, context: click.Context, args: list[str]):
        from difflib import get_close_matches

        known = self.list_commands(context)
        if args and args[0] not in known and not args[0].startswith("-"):
            near = get_close_matches(args[0], known, n=1, cutoff=0.5)
            context.fail(f"no command is called {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(context, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="lorakit")
def group() -> None:
    """A messy folder of photos in, a LoRA that works out: curate, caption, train, report.

    \b
    Begin with:  lorakit run PHOTOS -o PROJECT --base sd15 --kind object --trigger zwx --class-word mug
    """


def main() -> None:
    """Console entry. Where a launcher has started several processes, the first one runs the command, and the others help it."""
    # Threads that wait shall sleep: when another program works on the machine, OpenMP's default (spinning) made a
    # training on 2 cores 25 times slower. Read by OpenMP when torch is imported, so it is set before that.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # But not at once: a step of `mini` on 2 idle cores took 0.70 s where they never spin, 0.44 s where they do for some microseconds;
    # beside two busy programs 0.9 s, and 2.1 s without.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if not is_one_of_several():
        run_command()
        return
    from lorakit.train import crew

    run_command(crew.join)
    if not crew.leads():
        sys.exit(crew.serve())
    try:
        run_command()
    finally:
        crew.dismiss()


def is_one_of_several() -> bool:
    """Whether torchrun, or what else speaks its language, has started this process beside others."""
    named = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return named and os.environ["WORLD_SIZE"] not in ("", "1")


def run_command(command: Callable[[], None] = lambda: group(standalone_mode=False)) -> None:
    """Errors that a user can mend are one line and a non-zero exit, Ctrl-C is exit 130."""
    from lorakit.console import safe
    from lorakit.errors import LorakitError, Stopped, os_error_in_words

    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        command()
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be spoken of
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.show(told := io.StringIO())
        print("\n".join(map(safe, told.getvalue().rstrip("\n").split("\n"))), file=sys.stderr)
        sys.exit(error.exit_code)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except LorakitError as error:
        if os.environ.get("LORAKIT_TRACEBACK"):
            raise
        print(f"error: {safe(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has heard enough: `lorakit status | head`
        leave_quietly()
    except OSError as error:
        if os.environ.get("LORAKIT_TRACEBACK"):
            raise
        print(f"error: {safe(os_error_in_words(error))}", file=sys.stderr)
        leave_quietly(2)
    except (KeyboardInterrupt, click.Abort):
        print("stopped; what was done is kept, the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    except Exception as error:  # safetensors has a word of its own for a full disk
        number = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
        if not number or os.environ.get("LORAKIT_TRACEBACK"):
            raise
        print(f"error: {safe(os_error_in_words(OSError(int(number[1]), os.strerror(int(number[1])))))}", file=sys.stderr)
        leave_quietly(2)


def open_closed_streams() -> None:
    """A command started with stdin, stdout or stderr closed (`>&-`) gets /dev/null there: else the next file that is opened
    would take the number, and be written into by whatever a library prints."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (stays open)


def leave_quietly(code: int = 1) -> NoReturn:
    """Exit without Python's own complaint when it flushes a stdout that takes nothing any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)
