"""Settings of Sphinx. build.py lays out the pages, and starts it."""

project = "grfsaxs"
author = "the grfsaxs authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
exclude_patterns = ["lessons"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_render_markdown_format = "gfm"
nb_ipywidgets_js = {}  # these come from another server
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 4

default_role = "literal"
autodoc_mock_imports = ["cupy"]
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "grfsaxs"
html_favicon = "_static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_copyright = html_show_sphinx = False
html_show_search_summary = False  # it would show formulas as TeX
html_domain_indices = False
mathjax_path = "tex-svg.js"
# Sphinx puts what has a line break into this environment, in which MathJax allows no \\tag; our formulas need neither.
mathjax3_config = {"tex": {"environments": {"split": ["", ""]}}}
