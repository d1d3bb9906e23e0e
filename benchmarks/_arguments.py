"""The arguments that all reproductions take, checked before anything is measured."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks._models import CHECKPOINTS, TOY
from benchmarks._toy import MOST, write_toy


def parser(description: str | None, models: Sequence[str]) -> argparse.ArgumentParser:
    """A parser of these arguments; models are those that are measured where none are named."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = made.add_argument
    add("--root", type=Path, help="folder of the data; without it MixBench comes from the hub")
    add("--cache", type=Path, help="folder of embeddings (default: ROOT/embeddings, or embeddings)")
    known = ", ".join((*CHECKPOINTS, TOY))
    add("--models", nargs="+", metavar="MODEL", help=f"of {known} (default: {', '.join(models)})")
    add(
        "--checkpoint",
        nargs="+",
        default=[],
        metavar="MODEL=PLACE",
        help="where a model is: a folder, or owner/name on the hub",
    )
    toy = f"draw N scenes a dataset in ROOT (default: toy-N), a folder of their own; models: {TOY}, and --checkpoint's"
    add("--toy", type=between(2, MOST, int), metavar="N", help=toy)
    add("--unpublished", action="store_true", help="take data of other sizes than those published")
    add("--device", type=device, help="where models run (default: a GPU where there is one)")
    add("--batch-size", type=between(1, 1 << 20, int), help="values in one pass (default: the encoder's own)")
    add("--reference-metric", action="store_true", help="NDCG as the paper's code has it, beside the usual one")
    add("--json", type=new_file, help="file to write the results to")
    made.set_defaults(measured_by_default=list(models))
    return made


def add_query_alpha(made: argparse.ArgumentParser) -> None:
    """The weight of a query's text, where queries have pictures."""
    text = "weight of a query's text beside its picture (default: 0.5)"
    made.add_argument("--query-alpha", type=between(0, 1, float), default=0.5, help=text)


def between(low: float, high: float, kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of arguments: numbers in a range."""

    def number(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low} to {high}; got {text!r}")
        return value

    return number


def new_file(text: str) -> Path:
    """A type of arguments: a file that can be written."""
    path = Path(text)
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file in a folder that is there")
    return path


def folder(text: str) -> Path:
    """A type of arguments: a folder that is there, or can be made."""
    path = Path(text)
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder that can be written to")
    return path


def device(text: str) -> str:
    """A type of arguments: a device of this machine."""
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise argparse.ArgumentTypeError(f"{text!r} is no device of this machine ({reason})") from error
    return text


def prepare(made: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, with what depends on others filled in, and the toy data drawn where they are asked for."""
    arguments = made.parse_args(argv)
    places = [place.partition("=") for place in arguments.checkpoint]
    unclear = [f"{name}{sign}{place}" for name, sign, place in places if not (name and place)]
    if unclear:
        made.error(f"--checkpoint takes MODEL=PLACE; got {', '.join(unclear)}")
    arguments.checkpoint = {name: place for name, _, place in places}
    for argument, names in (("--models", arguments.models or ()), ("--checkpoint", arguments.checkpoint)):
        unknown = [name for name in names if name not in (*CHECKPOINTS, *([TOY] if argument == "--models" else []))]
        if unknown:
            made.error(f"{argument}: no model {', '.join(unknown)}; there are {', '.join((*CHECKPOINTS, TOY))}")
    if arguments.toy is not None:
        _draw(made, arguments)
    arguments.models = arguments.models or arguments.measured_by_default
    arguments.cache = arguments.cache or (arguments.root or Path()) / "embeddings"
    return arguments


def _draw(made: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Toy data, and the models that are tried on them."""
    models = [TOY, *arguments.checkpoint]
    if not set(arguments.models or ()) <= set(models):
        made.error(
            f"--toy measures {', '.join(models)}; leave --models out, or say --checkpoint MODEL=PLACE for others"
        )
    arguments.root = arguments.root or Path(f"toy-{arguments.toy}")
    arguments.models, arguments.unpublished = arguments.models or models, True
    write_toy(arguments.root, arguments.toy)
