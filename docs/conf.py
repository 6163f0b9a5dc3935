"""The site: `python -m sphinx -W -b html docs OUT`, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import fusionkit

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "fusionkit"
author = "The fusionkit developers"
copyright = author
release = version = fusionkit.__version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "accessible",
    "reference_pages",
    "repository_pages",
    "gallery",
]
exclude_patterns = ["published"]
# What is not a link in a page or a docstring is an error.
nitpicky = True
# Types of other packages are named, not linked: their indexes would come from the network.
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|sklearn|collections|pathlib|pluggy)\..*|.*\.rules\.C|Metric")]

myst_enable_extensions = ["colon_fence", "dollarmath", "attrs_inline", "deflist"]
myst_heading_anchors = 4
nb_execution_mode = "force"
# No limit: the machine may be busy.
nb_execution_timeout = -1
nb_execution_raise_on_error = True
nb_merge_streams = True

# A docstring marks code by single backticks too.
default_role = "code"
# Options such as --resume stay as they are.
smartquotes = False
# Attributes of a class in one list; arguments below each other where a signature is long.
napoleon_use_ivar = True
python_maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False

# What a command prints is no Python.
highlight_language = "text"
pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = f"fusionkit {release}"
html_static_path = ["_static"]
html_js_files = [("site.js", {"defer": "defer"})]
html_css_files = ["site.css"]
html_copy_source = False
# The commands of a console block alone.
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"
