"""Base models: families, names of their layers, weights, schedules."""

from lorakit.weights import quiet_bitsandbytes

quiet_bitsandbytes()
