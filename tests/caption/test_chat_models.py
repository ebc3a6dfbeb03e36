"""Every kind of chat model that sees: its prompt is whole, has one picture and one beginning, and a batch reads as photos one by one."""

import pytest
import torch

from lorakit.caption.captioners import vlm
from lorakit.errors import LorakitError
from lorakit.settings import Caption
from lorakit.text.answers import NoCaption
from lorakit.text.composing import RawCaption
from lorakit.weights import Source
from tests.caption import chat_models
from tests.caption.test_captioners import PHOTOS

QUESTION = "the red dog and the white cat in the garden . "  # words that the tiny tokenizers know, and a gap at its end


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """loaded('Gemma 3') is (its reader, its processor, what generate was given and made of it, call by call)."""

    def load(name, **settings):
        caught, calls = [], []
        load_model = vlm.load_model
        monkeypatch.setattr(vlm, "load_model", lambda *args: caught.append(load_model(*args)) or caught[-1])
        reader = vlm.load(Source(str(chat_models.make(name, tmp_path / "model")), True), "cpu", Caption(max_tokens=5, **settings))
        model, processor = caught[0]
        generate = model.generate

        def noted(**inputs):
            made = generate(**inputs, output_logits=True, return_dict_in_generate=True)
            calls.append((inputs["input_ids"], made.logits[0]))
            return made.sequences

        model.generate = noted
        return reader, processor, calls

    return load


QUICK = ("JoyCaption", "Qwen3-VL", "Qwen3.5", "Gemma 3", "Gemma 4", "MiniCPM-V 4.6")  # of every kind of template one; half a second each


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in chat_models.MAKERS])
def test_batch_is_single_and_the_prompt_is_right(name, loaded):
    read, processor, calls = loaded(name, prompt=QUESTION)
    together = read(PHOTOS)
    assert [read([photo])[0] for photo in PHOTOS] == together == read(PHOTOS[::-1])[::-1]
    of_batch, of_reversed = calls[0][1], calls[-1][1].flip(0)
    one_by_one = torch.cat([logits for _, logits in calls[1:-1]])
    assert torch.allclose(of_batch, one_by_one, atol=1e-3, rtol=1e-3) and torch.allclose(of_batch, of_reversed, atol=1e-3, rtol=1e-3)
    assert (of_batch[0] - of_batch[1]).abs().max() > 1e-4, "the photos differ, so must what is seen"
    prompt = vlm.render(processor, QUESTION)
    assert QUESTION.strip() in prompt and "[{" not in prompt
    for ids, _ in calls:
        begins = (ids == processor.tokenizer.bos_token_id).sum(1)
        assert begins.tolist() == [1] * len(ids), f"{processor.tokenizer.decode(ids[0])}"
        if name == "Qwen3.5":  # its own tokenizer cuts into bytes, which these few words do not have
            continue
        assert [QUESTION.strip().replace(" .", ".") in text.replace(" .", ".") for text in processor.batch_decode(ids)] == [True] * len(ids)
    assert not any(isinstance(answer, RawCaption) and "white cat in the garden" in answer.text for answer in together), (
        "the prompt is not repeated"
    )


def test_thinking_is_off_where_a_template_has_it_on(tmp_path):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(chat_models.make("Qwen3.5", tmp_path / "model"))
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    assert processor.apply_chat_template(asked, add_generation_prompt=True).endswith("<think>\n")
    assert vlm.render(processor, QUESTION).endswith("</think>\n\n")
    processor = AutoProcessor.from_pretrained(chat_models.make("MiniCPM-V 4.6", tmp_path / "other"))
    ids = processor.tokenizer("dog </think> red cat", add_special_tokens=False, return_tensors="pt").input_ids[0]
    assert vlm.spoken(processor, ids).strip().replace(" ", "") == "redcat"
    opened = processor.tokenizer("<think> red cat", add_special_tokens=False, return_tensors="pt").input_ids[0]
    assert isinstance(vlm.read_answer(vlm.spoken(processor, opened)), NoCaption)


class Template:
    """A processor of which nothing but the template matters."""

    image_token = "<image>"
    tokenizer = type("Tokenizer", (), {"name_or_path": "toy"})

    def __init__(self, talk: str):
        self.talk = talk

    def apply_chat_template(self, messages, **words):
        from transformers.utils.chat_template_utils import render_jinja_template

        return render_jinja_template(
            conversations=[messages], chat_template=self.talk, **{k: v for k, v in words.items() if k != "tokenize"}
        )[0][0]


ONE = "{% for m in messages %}"
FORMS = {
    "prints the list": (ONE + "<image>{{ m.content | replace('x', 'y') }}{% endfor %}", "string"),
    "joins the list": (ONE + "<image>{{ 'USER: ' + m.content }}{% endfor %}", "string"),
    "strips the list": (ONE + "<image>{{ m.content.strip() }}{% endfor %}", "string"),
    "takes a list": (ONE + "{% for c in m.content %}{{ '<image>' if c.type == 'image' else c.text }}{% endfor %}{% endfor %}", "list"),
    "forgets the text": (ONE + "<image>{% endfor %}", None),
    "forgets the picture": (ONE + "{{ m.content[-1].text }}{% endfor %}", None),
    "two pictures": (ONE + "{% for c in m.content %}{{ '<image><image>' if c.type == 'image' else c.text }}{% endfor %}{% endfor %}", None),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_template_that_wants_another_form_gets_it_or_is_refused(form):
    talk, taken = FORMS[form]
    if taken:
        text = vlm.render(Template(talk), "Describe it. ")
        assert text.count("<image>") == 1 and "Describe it." in text and "type" not in text
    else:
        with pytest.raises(LorakitError, match="takes no picture with a question"):
            vlm.render(Template(talk), "Describe it. ")


@pytest.mark.parametrize("precision", ["int8", pytest.param("nf4", marks=pytest.mark.slow)])
def test_weights_in_few_bits_read_as_the_whole_ones_nearly_do(precision, tmp_path):
    """Words of random weights turn on a hair, so the numbers are compared: logits of the first new token."""
    from lorakit.bases.quantised import QuantisedLinear
    from lorakit.caption.captioners.base import load_model

    if precision == "nf4":
        pytest.importorskip("bitsandbytes")
    folder = chat_models.make("LLaVA 1.5", tmp_path / "model")
    found = []
    for held in ("bf16", precision):
        model, processor = load_model(Source(str(folder), True), "cpu", held)
        inputs = processor(text=[vlm.render(processor, QUESTION)], images=[[PHOTOS[0]]], return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**inputs).logits[0, -1])
    assert any(isinstance(layer, QuantisedLinear) for layer in model.modules())
    error = (found[0] - found[1]).norm() / found[0].norm()
    assert 0 < error < {"int8": 0.05, "nf4": 2}[precision]  # weights as wild as these lose more in four bits than trained ones


def test_precision_follows_the_memory_that_is_free(capsys):
    from lorakit.caption.captioners.base import held_as

    model = Source("owner/name", False, size_gb=17)
    assert [held_as("auto", model, free) for free in (None, 24, 12)] == ["bf16", "bf16", "int8"]
    assert "held in int8" in capsys.readouterr().err
    assert held_as("int8", model, 80) == "int8" and held_as("nf4", model, None) == "nf4"


def test_tags_of_a_tagger_reach_the_question(loaded):
    read, processor, calls = loaded("LLaVA 1.5", prompt="the dog beside {tags} .")
    read.read_told(PHOTOS[:2], [("red cat",), ()])
    words = processor.batch_decode(calls[0][0])
    assert "beside red cat" in words[0] and "red cat" not in words[1] and "{" not in words[1]
