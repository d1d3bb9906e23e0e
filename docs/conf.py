"""Sphinx configuration: ``sphinx-build -W docs docs/_build``."""

import grclip

project = "grclip"
author = "The grclip developers"
project_copyright = "2026, The grclip developers"
version = release = grclip.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "myst_parser", "numpydoc"]
html_theme = "furo"
html_title = f"grclip {version}"
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath"]
autodoc_typehints = "none"
autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
numpydoc_show_inherited_class_members = False
