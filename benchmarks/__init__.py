"""Measurements of grclip, each a module to run: ``python -m benchmarks.real_clip``."""
