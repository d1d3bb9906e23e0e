"""Engines for indexes, services and clusters; each module needs its extra."""
