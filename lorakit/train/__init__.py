"""Latents, the training loop, samples and the LoRA file. Called, the package is its stage: `lorakit.train(project)`."""

from lorakit.lookup import make_callable

make_callable(__name__)
