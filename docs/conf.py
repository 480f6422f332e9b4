"""Sphinx configuration."""

import singleflight

project = "singleflight"
author = "The singleflight developers"
version = release = singleflight.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"singleflight {version}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["promises.css", "wide.css", "narrow.css", "marks.css", "pictures.css"]

myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_substitutions = {"version": version}
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # CHANGELOG.md is read from two places

# The docstrings are written for people who read the source: Google style, names in single backticks.
default_role = "code"
napoleon_numpy_docstring = False
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
