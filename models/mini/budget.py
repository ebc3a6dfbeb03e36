"""Training by wall-clock or by count: a learning rate that ends when the minutes or the pictures do, an average of the weights,
checkpoints."""

import contextlib
import math
import time

import torch


@contextlib.contextmanager
def threads(count):
    """So many threads within, as many as before after it: how many there are changes a last bit here and there, for the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Budget:
    """Minutes that a training may use, counted across restarts; `spent` is what earlier runs have used already."""

    def __init__(self, minutes, spent=0.0):
        self.minutes, self._before, self._start = minutes, spent, time.time()

    @property
    def spent(self):
        return self._before + (time.time() - self._start) / 60

    def share(self):
        """0 at the start, 1 when the minutes are used up."""
        return min(1.0, self.spent / self.minutes)

    def rate(self, peak, warmup=0.02, floor=0.02):
        """Linear warm-up over the first `warmup` of the budget, then a half cosine down to `floor` of the peak."""
        share = self.share()
        if share < warmup:
            return peak * (share / warmup + 1e-3)
        return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))))


class Count:
    """Pictures that a training is to see, counted across restarts. Other processes may count on the same tensor."""

    def __init__(self, total, done=0, decay=0.35):
        self.total, self.decay, self.done = total, decay, torch.tensor([int(done)]).share_memory_()
        self._start, self._before = None, int(done)

    def add(self, pictures):
        self._start = self._start or time.time()
        self.done += pictures

    def share(self):
        """0 at the start, 1 when all have been seen."""
        return min(1.0, self.done.item() / self.total) if self.total else 1.0

    def rate(self, peak, warmup=0.004):
        """Up within `warmup`, level, and down to nothing over the last `decay` (0: never): what is seen on the way is never half asleep."""
        end = (1 - self.share()) / self.decay if self.decay else 1.0
        return peak * max(0.0, min(1.0, self.share() / warmup + 1e-3, end))

    def report(self):
        """How far it is, how fast and how long still, in words."""
        done, seconds = self.done.item(), time.time() - (self._start or time.time())
        speed = (done - self._before) / max(seconds, 1e-6)
        left = (self.total - done) / max(speed, 1e-6) / 3600
        return f"{done / 1000:.1f} of {self.total / 1000:.0f} thousand, {speed:.1f}/s, {left:.1f} h left"


class Average:
    """Exponential moving average of some parameters, with a horizon that grows with the run."""

    def __init__(self, parameters, longest=0.999):
        self.parameters, self.longest, self.steps = list(parameters), longest, 0
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        decay = min(self.longest, self.steps / (self.steps + 20))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self):
        """Exchanges the average and the living weights; call it again to change back."""
        for value, parameter in zip(self.values, self.parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def choose_device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def save_checkpoint(path, **state):
    """Writes beside `path` and renames, so that a stopped run never leaves half a file."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.rename(path)


def load_checkpoint(path):
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
