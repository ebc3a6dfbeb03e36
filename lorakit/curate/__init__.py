"""From raw photos to a curated set: scan, check, dedupe, select, crop, and the dataset folder."""
