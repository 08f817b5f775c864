"""The site: `make docs`. Sphinx reads the repository's own Markdown where it stands, so that a link works here as on GitHub."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import navigation  # noqa: E402  # beside this file
import pages_from_code  # noqa: E402

from irm_lite.core.version import __version__  # noqa: E402

project = "irm-lite"
version = release = __version__
html_title = f"irm-lite {__version__}"

extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "docs/README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**"]
exclude_patterns = [".*", "**/.*", "build", "irm_lite", "tests", "benchmarks", "models", "tui", "runs", "*.egg-info"]

# Markdown as GitHub reads it: its anchors, and nothing that it would not show
myst_heading_anchors = 4
myst_enable_extensions = ["gfm_autolink"]
highlight_language = "text"  # a block that does not say what it is written in
nb_execution_mode = "off"  # docs/notebooks/retake.py runs them; their outputs are in the files

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
default_role = "code"  # docstrings write `names` as Markdown does

smartquotes = False  # `--data` is no dash

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["extra"]  # index.html at the top, which leads to the start page
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def setup(app):  # noqa: ANN001, ANN201  # Sphinx's own interface
    app.connect("source-read", navigation.add_toctrees)
    app.connect("source-read", pages_from_code.fill_in)
    app.connect("autodoc-process-docstring", pages_from_code.indented_is_code)
