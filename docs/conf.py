"""Sphinx configuration."""

import dataclasses
import re
import sys

from sphinx.pycode import ModuleAnalyzer

import singleflight
import singleflight.accounts
import singleflight.redis
import singleflight.testing

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
html_extra_path = ["llms.txt"]
copybutton_prompt_text = r">>> |\.\.\. "  # what an interpreter shows is not copied, nor its answers
copybutton_prompt_is_regexp = True
html_css_files = [
    "tables.css",
    "promises.css",
    "wide.css",
    "narrow.css",
    "marks.css",
    "pictures.css",
    "code.css",
]

myst_enable_extensions = ["colon_fence", "deflist", "substitution"]
myst_substitutions = {"version": version}
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # CHANGELOG.md is read from two places

# The docstrings are written for people who read the source: Google style, names in single backticks.
default_role = "code"
napoleon_numpy_docstring = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"


def show_one_signature(_app):
    """Show a function once, as the reference writes it, and not each overload for type checkers."""
    for _module, analyzer in own_modules():
        analyzer.overloads.clear()


def own_modules():
    """Yield each module of the package that is imported, with what its source says."""
    for name, module in sorted(sys.modules.items()):
        if name.split(".")[0] == "singleflight" and (getattr(module, "__file__", None) or "").endswith(".py"):
            analyzer = ModuleAnalyzer.for_module(name)
            analyzer.analyze()
            yield module, analyzer


def describe_constants(_app, what, name, thing, _options, lines):
    """Show of a constant what its module says below it, and not the docstring of its type."""
    if what != "data":
        return
    attribute = name.rpartition(".")[2]
    for module, analyzer in own_modules():
        written = analyzer.attr_docs.get(("", attribute))
        if written and getattr(module, attribute, None) is thing:
            lines[:] = written
            return
    raise LookupError(f"{name}: no module says what it is")


def list_fields(_app, what, _name, thing, _options, lines):
    """Add the fields of a data class, with their types and defaults, to what its docstring says."""
    if what != "class" or not dataclasses.is_dataclass(thing):
        return
    written = []
    for field in dataclasses.fields(thing):
        given = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        written.append(f"``{field.name}: {field.type}{given}``")
    lines += ["", f"Fields: {', '.join(written)}.", ""]


def let_names_break(_app, _page, _template, context, _doctree):
    """Let names in the cells of tables break between their words, so that narrow columns do not cut them."""

    def breakable(cell):
        return re.sub(
            r'(<span class="pre">)([^<]*)',
            lambda code: code[1] + re.sub(r"(?<=\w)([_./(=]+)(?=\w)", r"\1<wbr>", code[2]),
            cell[0],
        )

    context["body"] = re.sub(r"<td.*?</td>", breakable, context.get("body", ""), flags=re.DOTALL)


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", describe_constants, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", list_fields)
    app.connect("builder-inited", show_one_signature)
    app.connect("html-page-context", let_names_break)
