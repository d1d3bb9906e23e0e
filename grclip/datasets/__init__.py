"""Search tasks to try the package on, and ways to mix their documents."""

from grclip.datasets.mixing import mix_kinds, replace_parts
from grclip.datasets.toy import make_scenes

__all__ = ["make_scenes", "mix_kinds", "replace_parts"]
