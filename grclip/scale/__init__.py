"""Engines beyond one machine; each module needs its extra."""
