"""How Sphinx builds the documentation: ``sphinx-build -W -n docs build/docs`` (see CONTRIBUTING.md)."""

import sys
from pathlib import Path

import trio_smtp

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "trio_smtp"
author = "The trio_smtp authors"
project_copyright = author
version = release = trio_smtp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib_trio",
    "reference",
    "state_diagrams",
]
exclude_patterns = ["_ext"]
graphviz_output_format = "svg"

html_theme = "furo"
html_title = f"trio_smtp {version}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# Single backticks in docstrings stand for names of arguments and fields.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_legacy_class_based = True  # sphinxcontrib_trio extends these classes
autodoc_preserve_defaults = True
napoleon_use_ivar = False  # each field has an anchor, and is in the index
python_maximum_signature_line_length = 88

myst_enable_extensions = ["colon_fence", "deflist", "linkify"]
myst_linkify_fuzzy_links = False
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# Pages link to files of the repository, which the site does not hold.
suppress_warnings = ["myst.xref_missing"]
copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"
