"""CLIP families as transformers: raw texts, pictures, sounds and videos in, unit vectors out."""

from grclip.encoders.open_clip import OpenCLIPEncoder
from grclip.encoders.toy import toy_encoder

__all__ = ["OpenCLIPEncoder", "toy_encoder"]
