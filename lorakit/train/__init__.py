"""Latents, the training loop, samples and the LoRA file. Called, the package is its stage: `lorakit.train(project)`."""

from lorakit.lookup import make_callable
from lorakit.weights import quiet_bitsandbytes

quiet_bitsandbytes()
make_callable(__name__)
quiet_bitsandbytes()  # before anything here imports peft, which imports it
