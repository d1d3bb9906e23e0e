"""The command line: ``grclip demo``, ``search`` and ``report``; ``fit``, ``transform`` and ``info`` on files."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from grclip import __version__
from grclip._commands import add_commands
from grclip._optional import optional_import

DEFAULT_MODEL, DEFAULT_WEIGHTS = "ViT-B-32", "laion2b_s34b_b79k"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; what goes wrong is one line on standard error, and exit status 1 (130 of an interruption).

    Parameters
    ----------
    arguments : sequence of str, default=None
        Words of the command line; None takes those that the program was called with.

    Returns
    -------
    int
        Exit status.

    Raises
    ------
    SystemExit
        For a command line that makes no sense, with status 2.

    Examples
    --------
    >>> from grclip.cli import main
    >>> main(["search", "no-such-folder", "a red bicycle", "--model", "toy"])
    1
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a letter of a name shows its code
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            options.run(options)
            sys.stdout.flush()
    except BrokenPipeError:  # as of `grclip demo | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("grclip: interrupted", file=sys.stderr)
        return 130  # as of a program that the signal ended
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        print(f"grclip: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grclip", description="Mixed-modality search without the modality gap.")
    parser.add_argument("--version", action="version", version=f"grclip {__version__}")
    commands = parser.add_subparsers(title="commands", required=True)

    demo = commands.add_parser("demo", help="search drawn scenes before and after the gap is removed; no network")
    demo.add_argument("--save", type=Path, metavar="FILE", help="write the example results as a picture, e.g. demo.png")
    demo.set_defaults(run=_demo)

    search = commands.add_parser(
        "search",
        help="search the pictures and texts of a folder",
        epilog="Prints rank, score, kind and path. In a folder of texts and pictures scores count spreads above "
        "unrelated documents; in one of a single kind, or with too few to calibrate on, they are cosines, unless the "
        "calibrator has spreads.",
    )
    search.add_argument("folder", type=Path, help="a picture and a text of one name are one document")
    search.add_argument("words", nargs="+", help="what to look for")
    _add_model(search)
    search.add_argument("-k", type=int, default=10, help="number of results (%(default)s)")
    _add_calibrator(search)
    search.add_argument("--save", type=Path, metavar="FILE", help="write the results as a picture, e.g. results.png")
    search.set_defaults(run=_search)

    report = commands.add_parser(
        "report",
        help="write a page that shows what the gap does to a search, and what closing it changes",
        epilog="A line of the file of queries names the files that are right, as paths in the folder: "
        '{"query": "a red bicycle", "relevant": ["bike.jpg"]}',
    )
    report.add_argument(
        "folder", nargs="?", type=Path, help="pictures and texts; without one, drawn scenes are searched"
    )
    report.add_argument("--queries", type=Path, metavar="FILE", help="judged queries, one JSON object a line")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page (%(default)s)")
    _add_model(report)
    _add_calibrator(report)
    report.set_defaults(run=_report)
    add_commands(commands)
    return parser


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME", help="of open_clip, or toy (%(default)s)")
    command.add_argument(
        "--pretrained", metavar="TAG", help=f"weights of the model ({DEFAULT_WEIGHTS} for the default)"
    )


def _add_calibrator(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--calibrator",
        type=Path,
        metavar="FILE",
        help="what grclip fit, save_pipeline or ModalityGapRemover.save wrote: its means, its weights, and its "
        "spreads if it has any, else those of the folder",
    )


def _demo(options: argparse.Namespace) -> None:
    from grclip._demo import N_CALIBRATION, run_demo
    from grclip._judged import METHODS
    from grclip._sheet import save_sheet

    _check_save(options.save)
    print("Drawing scenes, and encoding texts and pictures with the toy encoder, a very small CLIP ...", flush=True)
    demo = run_demo()
    n = len(demo.task)
    print(f"{n} queries; {n} documents: texts, pictures, and both, in equal parts.")
    print(f"Means and scales come from {N_CALIBRATION} other scenes; the encoder was trained on none of all these.\n")
    print("NDCG@10, over all queries and by kind of the document that is right; share of pictures in the top 10\n")
    print(f"{'':26}{'all':>8}{'text':>8}{'image':>8}{'both':>8}{'pictures':>12}")
    for method, row in demo.table().items():
        print(f"{method:26}" + "".join(f"{value:8.3f}" for value in row[:-1]) + f"{row[-1]:11.0%}")
    examples = demo.examples()
    for query in examples:
        print(f"\n'{demo.task.queries['query'][query]}'")
        for ranking in demo.rankings(query):
            print(f"  {ranking.title}")
            for card, row in zip(ranking.cards, demo.rows[ranking.title][query], strict=False):
                shown = card.text or f"[picture of: {demo.task.queries['query'][row]}]"
                print(_line(f"  {'*' if card.relevant else ' '} {card.score:6.2f}  {card.kind:11} {shown}"))
    print(
        "\n* is the right document. Raw scores are cosines; on one scale they count spreads above unrelated documents."
    )
    if options.save:
        queries = demo.task.queries["query"]
        save_sheet(options.save, [(queries[query], demo.rankings(query)) for query in examples])
        print(f"The results above as a picture: {options.save}")
    print(f"\n{METHODS[-1]}: ModalityGapRemover() and MultimodalFuser(equalize=True) in a Pipeline, see the README.")


def _search(options: argparse.Namespace) -> None:
    from grclip._folder import search_folder
    from grclip._sheet import Card, Ranking, save_sheet
    from grclip.encoders._media import open_image

    _check_save(options.save)
    words = " ".join(options.words).strip()
    if not words:
        raise ValueError("the words are empty; say what to look for")
    encoder, calibrator = _models(options)
    hits = search_folder(options.folder, words, encoder, k=options.k, calibrator=calibrator)
    for rank, hit in enumerate(hits, 1):
        paths = " + ".join(str(path.relative_to(options.folder)) for path in hit.paths)
        print(f"{rank:3}  {hit.score:6.2f}  {hit.kind:11} {paths}")
    if options.save:
        cards = [Card(hit.kind, hit.score, hit.text, hit.picture and open_image(hit.picture)) for hit in hits[:10]]
        save_sheet(options.save, [(words, [Ranking(str(options.folder), cards)])])


def _models(options: argparse.Namespace) -> tuple[Any, Any]:
    """The encoder that was chosen, and the calibrator, if a file was given."""
    from grclip._calibrator import Calibrator
    from grclip.encoders import OpenCLIPEncoder

    calibrator = Calibrator.load(options.calibrator) if options.calibrator else None
    weights = options.pretrained or (DEFAULT_WEIGHTS if options.model == DEFAULT_MODEL else None)
    return OpenCLIPEncoder(options.model, weights, on_error="skip"), calibrator


def _report(options: argparse.Namespace) -> None:
    from grclip._demo import scenes
    from grclip._judged import judged_folder
    from grclip._report import report

    if (options.folder is None) != (options.queries is None):
        raise ValueError("a folder and its judged queries go together: grclip report FOLDER --queries FILE")
    if options.folder is None and options.calibrator is not None:
        raise ValueError("--calibrator is for a folder: grclip report FOLDER --queries FILE --calibrator FILE")
    if options.queries is not None and not options.queries.is_file():
        raise FileNotFoundError(f"--queries {options.queries}: no such file")
    if not options.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out {options.out}: no such folder: {options.out.absolute().parent}")
    for read in filter(None, (options.queries, options.calibrator)):
        if options.out.exists() and read.exists() and options.out.samefile(read):
            raise ValueError(f"--out {options.out} is the file that is read; name another")
    if options.folder is None:
        print("Drawing 1,000 scenes, encoding them with a very small CLIP, and searching them ...", flush=True)
        found, title = scenes(), "Search over drawn scenes"
    else:
        found, title = (
            judged_folder(options.folder, options.queries, *_models(options)),
            f"Search in {options.folder.resolve().name}",
        )
    page = report(
        found.task,
        found.qrels,
        found.methods,
        found.items,
        options.out,
        k=min(10, len(found.task.corpus)),
        title=title,
        note=found.note,
        calibration=found.calibration,
    )
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB; open it in a browser")


def _check_save(path: Path | None) -> None:
    """That a picture can be written, before the work is done."""
    if path is None:
        return
    known = optional_import("PIL.Image", "open-clip", "--save").registered_extensions()
    if path.suffix.lower() not in known:
        raise ValueError(f"--save {path}: no format of a picture; end the name in .png")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"--save {path}: no such folder: {path.absolute().parent}")


def _line(text: str) -> str:
    """A line that fits the terminal, or 120 columns where there is none."""
    width = shutil.get_terminal_size((120, 24)).columns
    return text if len(text) <= width else f"{text[: width - 4]} ..."


def _show_warning(message: Any, *_: Any) -> None:
    print(f"grclip: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
