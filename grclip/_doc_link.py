"""Where the documentation of an estimator lies: scikit-learn's HTML representation links to it."""

from __future__ import annotations

import sys

API = "https://grclip.readthedocs.io/en/stable/api.html"


class DocLinkMixin:
    """Leads from the HTML representation of an estimator to its entry on the API page."""

    _doc_link_module = "grclip"
    _doc_link_template = API + "#{name}"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """The public name of the class: that of the package around its module, where this exports it."""
        module, name = type(self).__module__, type(self).__name__
        package = module.rpartition(".")[0]
        owner = package if hasattr(sys.modules.get(package), name) else module
        return {"name": f"{owner}.{name}"}
