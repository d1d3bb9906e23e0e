"""Where the documentation of an estimator lies: scikit-learn's HTML representation links to it."""

from __future__ import annotations

API = "https://grclip.readthedocs.io/en/stable/api.html"


class DocLinkMixin:
    """Leads from the HTML representation of an estimator to its entry on the API page."""

    _doc_link_module = "grclip"
    _doc_link_template = API + "#{name}"

    def _doc_link_url_param_generator(self) -> dict[str, str]:
        """The public name of the class, which the package around its module exports."""
        package = type(self).__module__.rpartition(".")[0]
        return {"name": f"{package}.{type(self).__name__}"}
