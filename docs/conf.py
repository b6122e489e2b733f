"""How Sphinx builds this site; `make docs` does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import recast_probe

project = "recast_probe"
author = "The recast_probe developers"
version = release = recast_probe.__version__

extensions = [
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "docs.site.docstrings",
    "docs.site.extension",
]
exclude_patterns = ["measured", "site"]

# inline code that is a public name becomes a link; all other stays as it is
default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# notebooks are shown as they were stored; the tests run them
nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

nitpicky = True
nitpick_ignore_regex = [
    # names of other packages, in full and as they are imported: their own sites describe them, and
    # a build needs no network
    ("py:.*", r"(?!recast_probe\.)[\w.]+\.\w+"),
    # what Sphinx makes of a type with a comma in it
    ("py:class", r"(dict|collections\.abc\.Mapping)\[str"),
    ("py:.*", "Axes|Figure|FluxKontextPipeline|Path|Tensor"),
]

html_theme = "pydata_sphinx_theme"
html_title = "recast_probe"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
# pages at the top have no others below them
html_sidebars = {"*": []}
templates_path = ["site/templates"]
html_static_path = ["site/static"]
html_css_files = ["site.css"]
copyright = f"{author}. Apache-2.0"
