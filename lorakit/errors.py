"""What can go wrong that a user can mend: each error is one line that says what, where and the mend."""


class LorakitError(Exception):
    """A fault of the input or the settings. The command line prints it as one line and exits with `exit_code`."""

    exit_code = 2


class UnknownName(LorakitError):
    """A name (setting, base, kind, check, captioner, stage) that does not exist; names the nearest that does."""

    def __init__(self, what: str, name: str, known: list[str], where: str = ""):
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        super().__init__(f"{where + ': ' if where else ''}no {what} is called {name!r}; {hint}")


class UnreadablePhoto(LorakitError):
    """A file that cannot be shown as a picture. `reason` is one word, `detail` the decoder's own message."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class WeightsMissing(LorakitError):
    """Model weights that are neither given, nor cached, nor to be had from the hub."""


class ProjectBusy(LorakitError):
    """Another lorakit holds the project's lock, or writes its decisions."""


class Conflict(LorakitError):
    """A decision that was made on a state which has changed meanwhile."""


class Stopped(LorakitError):
    """A person asked the work to stop, and it has: all is kept. No fault, so no `error:` stands before the line."""

    exit_code = 130
