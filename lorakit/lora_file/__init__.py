"""A LoRA file by itself: read, judged, converted; no project."""
