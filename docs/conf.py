"""Sphinx configuration."""

from __future__ import annotations

project = "tenantry"
author = "The tenantry authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "tenantry"
html_show_copyright = False  # the licence says it
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_custom_sections = [("Cost", "notes"), ("Source", "notes"), ("Thread safety", "notes")]
