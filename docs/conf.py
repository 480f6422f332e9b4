"""Sphinx configuration."""

project = "singleflight"
author = "The singleflight developers"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
html_theme = "furo"
html_title = "singleflight"
exclude_patterns = ["_build"]
autodoc_typehints = "none"
nitpicky = False
suppress_warnings = ["myst.xref_missing"]
