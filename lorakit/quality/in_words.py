"""Reasons in plain words: 'blurred: 0.12, limit 0.3' for what a check calls blurry. The one table of them; a reason of a plug-in that
is not in it is said with its own name."""

from __future__ import annotations

from typing import Any, NamedTuple

from lorakit.quality.verdicts import Reason


class Words(NamedTuple):
    """What a reason is called, what its numbers are counted in, what the second one is, and what was measured where that needs saying."""

    said: str
    unit: str = ""
    limit: str = "limit"
    what: str = ""
    is_share: bool = False  # 0 to 1, said in percent


WORDS = {
    # no photo, or a broken one
    "damaged": Words("damaged"),
    "decoder_warning": Words("its file is not quite in order"),
    "empty": Words("an empty file"),
    "not_an_image": Words("no picture"),
    "unreadable": Words("cannot be read"),
    "raw": Words("a raw file of a camera"),
    "too_many_pixels": Words("too many pixels"),
    "too_many_bytes": Words("too large a file"),
    "animated": Words("several frames, the first is used", "frames", ""),
    # its pixels
    "too_small": Words("too small", "px"),
    "small": Words("small", "px", "better from"),
    "too_narrow": Words("too narrow", "times as long as wide"),
    "odd_aspect": Words("another shape than the rest", "times as long as wide", "usual are"),
    "blurry": Words("blurred"),
    "soft": Words("a little soft"),
    "little_texture": Words("too plain to tell whether it is sharp"),
    "too_dark": Words("too dark", what="lights reach"),
    "dark": Words("dark", what="lights reach"),
    "too_bright": Words("blown out", is_share=True),
    "clipped": Words("partly blown out", is_share=True),
    "bright": Words("bright"),
    "flat": Words("one tone", "tones apart"),
    "low_contrast": Words("little contrast", "tones apart"),
    "borders": Words("a border or frame", is_share=True),
    "over_compressed": Words("compressed too hard", what="JPEG quality"),
    "compressed": Words("compressed hard", limit="better from", what="JPEG quality"),
    "upscaled": Words("enlarged from a smaller picture"),
    "grayscale": Words("no colour, unlike the rest"),
    "text": Words("writing on it", is_share=True),
    "no_face": Words("no face found", "", "wanted"),
    "few_faces": Words("few faces", "", "wanted"),
    "many_faces": Words("many faces", "", "wanted"),
    "hdr": Words("HDR"),
    "transparent": Words("transparent, laid on white"),
    # beside other photos
    "duplicate": Words("the same file"),
    "near_duplicate": Words("nearly the same picture", "of 256 bits differ"),
    "mirrored": Words("the same picture, mirrored or turned", "of 256 bits differ"),
    "burst": Words("the same moment", "of 256 bits differ"),
    "other_subject": Words("shows something else than the rest"),
    "same_meaning": Words("shows the same as another", what="likeness"),
    # its words
    "same_words_as_others": Words("the same text as others", "", ""),
    "another_thing": Words("names another thing", "", "not"),
    "filler": Words("empty words"),
    "repetition": Words("says it twice"),
    "cut_off": Words("ends in the middle"),
    "prompt_syntax": Words("signs that tools read as commands"),
    "odd_letters": Words("odd letters"),
    "trigger_missing": Words("the trigger is missing", "times", "wanted"),
    "trigger_repeated": Words("the trigger is repeated", "times", "wanted"),
    "says_nothing": Words("says nothing beside trigger and class"),
    "too_many_tokens": Words("too long", "tokens"),
    "cut_to_budget": Words("was cut, too long"),
    "not_dark": Words("says dark, and is bright", "", "word"),
    "not_bright": Words("says bright, and is dark", "", "word"),
    "not_gray": Words("says gray, and has colour", "", "word"),
    "guesses": Words("guesses"),
    "readings_contradict": Words("one captioner says", "", "the other"),
    "contradicts_photo": Words("does not fit the photo", "", "seen"),
    "does_not_match_photo": Words("fits its photo badly"),
    # by a person
    "by_hand": Words("taken out by hand"),
}
BARE = {"duplicate", "transparent", "says_nothing", "cut_off"}  # whose numbers say nothing to a reader
NO_COLOUR = "no_"  # 'no_red': the word that stands in the text and the colour that is not in the photo


def name(reason: str) -> str:
    """'blurred' for blurry."""
    if reason in WORDS:
        return WORDS[reason].said
    plain = reason.replace("_", " ")
    return f"says {plain.removeprefix('no ')}, which is not in it" if reason.startswith(NO_COLOUR) else plain


def in_words(reason: Reason) -> str:
    """'blurred: 0.12, limit 0.3'."""
    words = WORDS.get(reason.reason, Words(name(reason.reason)))
    if reason.reason in BARE or reason.value is None or reason.reason.startswith(NO_COLOUR) and reason.reason not in WORDS:
        return name(reason.reason)
    value = f"{words.what} {_number(reason.value, words.is_share)} {words.unit}".strip()
    if reason.threshold is None or not words.limit:
        return f"{words.said}: {value}"
    return f"{words.said}: {value}, {words.limit} {_number(reason.threshold, words.is_share)}"


def _number(value: Any, is_share: bool) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{100 * value:.3g} %" if is_share else f"{value:.3g}" if isinstance(value, float) else str(value)
