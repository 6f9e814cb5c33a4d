"""Diagnosis: what a precision does to a model's training step, and what cures it."""
