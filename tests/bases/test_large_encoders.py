"""T5 tensor by tensor: what transformers reads, and in 8 bits nearly that, where the card asks for it."""

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from lorakit import device
from lorakit.bases import large_encoders, streaming
from lorakit.bases.quantised import QuantisedLinear
from lorakit.settings import Train

IDS = torch.arange(3, 40)[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_what_transformers_reads(tiny_base, dtype):
    folder = tiny_base("flux1") / "text_encoder_2"
    whole = T5EncoderModel.from_pretrained(folder, dtype=dtype)
    found = large_encoders.build(
        T5EncoderModel, T5Config.from_pretrained(folder), streaming.read_folder(folder), None, dtype, "cpu", "it"
    ).eval()
    wanted, state = whole.state_dict(), found.state_dict()
    assert wanted.keys() == state.keys()
    assert all(torch.equal(wanted[key], state[key]) and wanted[key].dtype == state[key].dtype for key in wanted)
    with torch.no_grad():
        assert torch.equal(whole(IDS)[0], found(IDS)[0])
    assert found.shared.weight is found.encoder.embed_tokens.weight


@pytest.fixture(scope="module")
def middling(tmp_path_factory):
    """T5 of 8 layers and 25 million weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("t5")
    config = T5Config(vocab_size=64, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=8, feed_forward_proj="gated-gelu")
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def test_in_8_bits_its_states_are_nearly_those_in_bf16(middling):
    """int8 against bf16, and bf16 against fp32 for comparison."""

    @torch.no_grad()
    def states(precision, dtype):
        model = large_encoders.build(
            T5EncoderModel, T5Config.from_pretrained(middling), streaming.read_folder(middling), precision, dtype, "cpu", "it"
        ).eval()
        held = [layer for layer in model.modules() if isinstance(layer, QuantisedLinear)]
        assert len(held) == (8 * 7 if precision else 0)
        return model(IDS)[0].float()

    exact, bf16, int8 = states(None, torch.float32), states(None, torch.bfloat16), states("int8", torch.bfloat16)
    assert (bf16 - exact).norm() < 0.02 * exact.norm()
    assert 0 < (int8 - bf16).norm() < 0.04 * bf16.norm()


def test_auto_takes_8_bits_where_the_rest_does_not_fit(load_tiny, monkeypatch):
    def held(free, settings):
        monkeypatch.setattr(device, "free_gb", lambda where: free)
        return sum(isinstance(layer, QuantisedLinear) for layer in load_tiny("flux1", settings).encoder("text_encoder_2").modules())

    assert held(None, Train()) == held(24.0, Train()) == held(0.1, Train(encoder_precision="bf16")) == 0
    assert held(0.1, Train()) == held(None, Train(encoder_precision="int8")) == 2 * 7
    assert held(0.1, Train(text_encoder=True, t5=True)) == 0  # what learns is left as it is
    xxl = T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu")
    assert large_encoders.size_gb(T5EncoderModel, xxl, torch.bfloat16) == pytest.approx(8.87, abs=0.02)
    assert large_encoders.size_gb(T5EncoderModel, xxl, torch.bfloat16, precision="int8") == pytest.approx(4.56, abs=0.02)


@pytest.mark.parametrize("name", ["flux1", "qwen_image"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_what_fits_in_no_way_is_brought_layer_by_layer_with_the_same_numbers(load_tiny, monkeypatch, capsys, name, precision):
    """Its weights lie in the machine's memory but for the layer that computes; here both are the same memory."""
    settings = Train(encoder_precision=precision)
    whole = load_tiny(name, settings).encode_text("a mug on grass")
    monkeypatch.setattr(device, "free_gb", lambda where: 0.0)
    family = load_tiny(name, settings)
    found = family.encode_text("a mug on grass")
    (large,) = family.large_encoders()
    assert all(tensor.is_meta for tensor in family.encoder(large).parameters())
    assert "does not fit what is free of the card" in capsys.readouterr().err
    assert whole.keys() == found.keys() and all(torch.equal(whole[key], found[key]) for key in whole)
    family.release_encoders()
    assert large not in family._parts
