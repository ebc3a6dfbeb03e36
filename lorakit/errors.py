"""What can go wrong that a user can mend: each error is one line that says what, where and the mend."""

from __future__ import annotations

import errno

MENDS = {  # of errors of the operating system: what to do
    errno.ENOSPC: "the disk is full: free some space; the same command goes on from here",
    errno.EDQUOT: "your share of the disk is used up: free some space; the same command goes on from here",
    errno.EFBIG: "no file may be so large here: raise the limit (ulimit -f unlimited), or choose another disk; the same command goes on from here",
    errno.EACCES: "lorakit may not: change its rights (chmod), or choose another place",
    errno.EPERM: "lorakit may not: change its rights (chmod), or choose another place",
    errno.EROFS: "it cannot be written to: copy the project to where it can, or choose another -o",
    errno.ENOENT: "it is not there (any more): the same command makes again what lorakit made; anything else put back",
    errno.ENOTDIR: "a file lies where a folder should be: move it away, or choose another place",
    errno.EISDIR: "a folder lies where a file should be: move it away",
    errno.EEXIST: "something lies there already: move it away",
    errno.ENAMETOOLONG: "the file system takes no name so long: choose a shorter one",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n 4096)",
    errno.ENOMEM: "there is no memory left: close other programs",
    errno.EIO: "the disk could not be read or written: look after it, and copy what matters",
    errno.EXDEV: "it lies on another disk than the project: put both on one",
    errno.ESTALE: "the network's disk has lost it: mount it again",
}


def os_error_in_words(error: OSError) -> str:
    """One line for whatever the operating system refused: where, what, the mend."""
    if error.errno is None:  # of libraries that use the class for their own
        return " ".join(str(error).split()) or type(error).__name__
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    place = f"{name}: " if name is not None else ""
    return f"{place}{error.strerror}; {MENDS.get(error.errno, 'the same command goes on from here once that is mended')}"


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
        self._given = (what, name, known, where)

    def __reduce__(self):  # from one process to another
        return type(self), self._given


class UnreadablePhoto(LorakitError):
    """A file that cannot be shown as a picture. `reason` is one word, `detail` the decoder's own message."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self):  # from one process to another
        return type(self), (self.reason, self.detail)


class NotGiven(UnreadablePhoto):
    """One that a store does not give now: for the network's reasons or its own, not for the photo's."""


class WeightsMissing(LorakitError):
    """Model weights that are neither given, nor cached, nor to be had from the hub."""


class ProjectBusy(LorakitError):
    """Another lorakit holds the project's lock, or writes its decisions."""


class Conflict(LorakitError):
    """A decision that was made on a state which has changed meanwhile."""


class Stopped(LorakitError):
    """A person asked the work to stop, and it has: all is kept. No fault, so no `error:` stands before the line."""

    exit_code = 130
