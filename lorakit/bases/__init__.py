"""Base models: families, names of their layers, weights, schedules."""
