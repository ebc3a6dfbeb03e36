"""How long lorakit takes to its first word and to the end of its light commands, beside `python -c pass`.

    python bench/startup.py            the best of five, warm; seconds, and times an empty Python

A loaded machine makes all of it slower, so the ratio tells more than the seconds."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHOTOS = Path(__file__).parents[1] / "sample_data" / "photos"
LIGHT = (["show"], ["bases"], ["status", "PROJECT"], ["trigger", "dog"], ["trigger", "dog", "--base", "mini"], ["help"])
# (command, what its first line on stderr is waited for)
WORKING = (["curate", "PHOTOS", "-o", "NEW"], ["run", "PHOTOS", "-o", "NEW", "--base", "mini", "--trigger", "zwx"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="runs of each, of which the best counts")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        named = {"PROJECT": str(place / "project"), "PHOTOS": str(PHOTOS)}
        lorakit(["curate", str(PHOTOS), "-o", named["PROJECT"], "--base", "mini", "--until", "scan"]).wait()
        empty = min(seconds_to_the_end([sys.executable, "-c", "pass"]) for _ in range(times))
        print(f"{'python -c pass':<56} {empty:6.2f} s")
        for words in LIGHT:
            best = min(
                seconds_to_the_end([sys.executable, "-m", "lorakit", *(named.get(word, word) for word in words)]) for _ in range(times)
            )
            tell(" ".join(words), best, empty)
        for words in WORKING:
            runs = ([named.get(word, str(place / f"new{n}") if word == "NEW" else word) for word in words] for n in range(times))
            tell(f"first line of {' '.join(words)}", min(seconds_to_the_first_line(run) for run in runs), empty)


def tell(what: str, seconds: float, empty: float) -> None:
    print(f"{what:<56} {seconds:6.2f} s   {seconds / empty:5.1f} times")


def lorakit(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "lorakit", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def seconds_to_the_end(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def seconds_to_the_first_line(words: list[str]) -> float:
    began = time.perf_counter()
    process = lorakit(words)
    process.stderr.readline()
    took = time.perf_counter() - began
    process.kill()
    process.wait()
    return took


if __name__ == "__main__":
    main()
