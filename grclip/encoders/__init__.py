"""CLIP families as transformers: raw texts, pictures, sounds and videos in, unit vectors out."""

from grclip.encoders._model import release_models
from grclip.encoders.open_clip import OpenCLIPEncoder
from grclip.encoders.sentence_transformers import SentenceTransformerEncoder
from grclip.encoders.toy import toy_encoder
from grclip.encoders.transformers import TransformersEncoder
from grclip.encoders.vlm2vec import VLM2VecEncoder

__all__ = [
    "OpenCLIPEncoder",
    "SentenceTransformerEncoder",
    "TransformersEncoder",
    "VLM2VecEncoder",
    "release_models",
    "toy_encoder",
]
