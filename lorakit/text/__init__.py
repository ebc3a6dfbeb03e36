"""Texts, without photos and without models."""
