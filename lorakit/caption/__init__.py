"""Captions, the trigger word, and a person's review of both. Called, the package is its stage: `lorakit.caption(project)`."""

from lorakit.lookup import make_callable

make_callable(__name__)
