"""Estimators as scikit-learn shows them in a notebook: a diagram, whose links lead to the API page."""

import re

import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_html_repr

from grclip import ExactRetriever, ModalityGapRemover, MultimodalFuser
from grclip.encoders import (
    OpenCLIPEncoder,
    SentenceTransformerEncoder,
    TransformersEncoder,
    VLM2VecEncoder,
)
from tests.test_house import ROOT

NAMES = {
    "grclip.ModalityGapRemover": ModalityGapRemover(),
    "grclip.MultimodalFuser": MultimodalFuser(weights={"title": 0.2}, equalize=True),
    "grclip.ExactRetriever": ExactRetriever(k=3),
    "grclip.encoders.OpenCLIPEncoder": OpenCLIPEncoder("ViT-B-32", "laion2b_s34b_b79k"),
    "grclip.encoders.TransformersEncoder": TransformersEncoder("openai/clip-vit-base-patch32"),
    "grclip.encoders.SentenceTransformerEncoder": SentenceTransformerEncoder("clip-ViT-B-32"),
    "grclip.encoders.VLM2VecEncoder": VLM2VecEncoder("TIGER-Lab/VLM2Vec-Qwen2VL-2B"),
}


def links(estimator):
    return set(re.findall(r'href="(https://grclip[^"#]*#[\w.]+)', estimator_html_repr(estimator)))


@pytest.mark.parametrize("name", NAMES)
def test_an_estimator_links_to_its_entry_on_the_api_page(name):
    (link,) = links(NAMES[name])
    page, _, anchor = link.partition("#")
    assert page.endswith("/api.html")
    assert anchor == name
    assert f".. autoclass:: {name}\n" in (ROOT / "docs" / "api.md").read_text()


def test_a_pipeline_shows_each_step_with_its_link(mixed):
    steps = ("grclip.ModalityGapRemover", "grclip.MultimodalFuser", "grclip.ExactRetriever")
    pipeline = Pipeline([(name.rpartition(".")[2], clone(NAMES[name])) for name in steps])
    pipeline.set_params(MultimodalFuser__weights=None)
    for shown in (pipeline, pipeline.fit(*mixed), GridSearchCV(pipeline, {"MultimodalFuser__alpha": [0.3]})):
        assert {link.partition("#")[2] for link in links(shown)} == set(steps)


def test_a_class_of_the_users_own_has_no_link():
    class Mine(ModalityGapRemover):
        pass

    assert links(Mine()) == set()
