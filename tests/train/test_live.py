"""The note behind the progress of a training."""

from lorakit.train.live import Note
from lorakit.train.metrics import StepMetrics


def line(step, loss, validation=None):
    return StepMetrics(step, 0.1, loss, 9.8e-5, 1.0, 0.5, ["a.jpg"], validation=validation)


def test_the_loss_is_smoothed_and_the_last_validation_stays():
    note = Note("cpu")
    assert note.of(line(1, 0.5)) == "loss 0.5000, rate 9.8e-05"
    assert note.of(line(2, 0.5, 0.25)) == "loss 0.5000, validation 0.2500, rate 9.8e-05"
    leap = note.of(line(3, 1.5))
    assert 0.8 < float(leap.split()[1].rstrip(",")) < 0.9 and "validation 0.2500" in leap, "near the mean of three"


def test_memory_is_told_on_a_card(monkeypatch):
    monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda device: 3 * 2**30)
    assert Note("cuda:0").of(line(1, 0.5)).endswith(", card 3.0 GB")
