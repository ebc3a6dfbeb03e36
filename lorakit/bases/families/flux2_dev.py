"""FLUX.2 dev: the transformer and the VAE of FLUX.2 klein, larger and with guidance as an input, and three layers of Mistral Small 3."""

from __future__ import annotations

from diffusers import Flux2Pipeline
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from torch import Tensor
from transformers import AutoTokenizer, MistralModel

from lorakit.bases.families.base import Text, flow_in_comfyui
from lorakit.bases.families.flux2 import Flux2, unpatched
from lorakit.bases.single_file_configs import MISTRAL_SMALL_3, Layout

TITLE = "FLUX.2"

OTHER_TRAINERS = {
    "diffusers": {"script": "dreambooth/train_dreambooth_lora_flux2.py", "takes": ("lora_alpha", "guidance_scale")},
    "ai_toolkit": {"arch": "flux2", "scheduler": "flowmatch"},
}

READS = ("Llama",)  # how the class of its tokenizer begins, as Mistral's are published

LAYERS = (10, 20, 30)  # of the language model's 40
IMAGE_TOKEN = "[IMG]"  # stands for a picture that the language model sees beside the text


class Flux2Dev(Flux2):
    """What differs from klein: the text encoder and its template, a guidance that was distilled into it, and so no negative prompt."""

    CONFIG = {}  # the class's own defaults are dev
    MEMBERS = {}
    ENCODERS = {"text_encoder": MistralModel}  # of Mistral3, which sees too, what reads words
    TOKENIZERS = {"tokenizer": AutoTokenizer}
    ENCODER_CONFIGS = {"text_encoder": MISTRAL_SMALL_3}
    LAYERS_READ = {"text_encoder": LAYERS[-1]}  # ComfyUI's file has no more of them
    PIPELINE = Flux2Pipeline
    TAKES_NEGATIVE = False  # its guidance is an input of the transformer, and no second prediction is made
    IN_TOOLS = {
        "comfyui": flow_in_comfyui(
            "flux2-vae.safetensors", {"clip_name": "mistral_3_small_flux2_bf16.safetensors", "type": "flux2"}, latent="EmptyFlux2LatentImage",
            is_distilled=True,
        )
    }  # fmt: skip
    NAME = "flux2_dev"

    IN_HEADERS = "flux2dev"
    LAYOUTS = (
        Layout(
            "flux2-dev", "FLUX.2 dev", {"text_encoder": "text_encoders.mistral3_24b.transformer."}, cards={"flux2-dev": ""}, usual="flux2-dev",
            blocks="double_stream_modulation_img.", needs="guidance_in.", inputs=("img_in.weight", 128), unknown_tokenizers=("tokenizer",),
        ),
    )  # fmt: skip

    def prepare(self, name: str, text: str) -> Tensor:
        """[512, 3 x width], as klein's; filled up where the tokenizer says, which is in front. The message to the model about what it is
        counts among the 512."""
        said = {"system": SYSTEM_MESSAGE, "user": text.replace(IMAGE_TOKEN, "")}
        message = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in said.items()]
        tokenizer = self.tokenizer(self.tokenizer_of(name))
        words = tokenizer.apply_chat_template(message, tokenize=False)
        return self.states_side_by_side(name, words, LAYERS, pad=True, bare=words.startswith(tokenizer.bos_token or words))

    def prompt_options(self, text: Text, empty: Text, negative: Text | None = None) -> dict[str, Tensor]:
        return {"prompt_embeds": text["states"]}

    def latents_of(self, drawn: Tensor, height: int, width: int) -> Tensor:
        """Of tokens, which its pipeline gives as they are."""
        rows, columns = (side // self.latent_side // 2 for side in (height, width))
        return unpatched(drawn.transpose(1, 2).reshape(len(drawn), -1, rows, columns))

    def pipeline(self) -> Flux2Pipeline:
        return Flux2Pipeline(**self.sampling_parts(), scheduler=self.process.schedule)


CLASS = Flux2Dev
