"""A Parquet file that is written row group by row group, and goes on where it was after a kill -9.

Finished row groups lie one after the other in a file beside the output, and a journal has a line for each: where it
ends, a checksum, and its footer. At the end all footers become one, and the file takes its name. A row group depends on
nothing but its rows and its place, so the bytes are the same however often the writing was broken off. Each line begins
with a checksum of its own.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from grclip._parquet import arrow

_MAGIC = b"PAR1"
_STEP = 2**26  # bytes of memory that is reserved, and never touched: see _After
_READ = 2**22
_NESTED = ".list.element"


def beside(path: Path) -> tuple[Path, Path]:
    """The files of row groups and of the journal while another is written."""
    path = path.resolve()
    return path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.journal")


def forget(path: Path) -> None:
    """Remove the journal that was kept of a finished file, unless another process has begun to write it anew."""
    partial, journal = beside(path)
    with suppress(RuntimeError), _locked(journal, path):
        if not partial.exists():
            journal.unlink()


class AppendedParquet:
    """Appends tables to a Parquet file, each as one row group; `job` is all that its bytes depend on."""

    def __init__(self, path: Path, schema: Any, job: Mapping[str, Any], *, plain: tuple[str, ...] = ()) -> None:
        self.path = path.resolve()  # through a link, not over it
        self.partial, self.journal = beside(path)
        self.schema, self.job = schema, json.loads(json.dumps(job))
        self.options = writer_options(schema, plain)
        self.n_rows, self.finished, self.note = 0, False, ""
        self._footers: list[bytes] = []
        self._end = len(_MAGIC)

    def __enter__(self) -> Self:
        self._lines = _locked(self.journal, self.path)
        try:
            with self._explained():
                self._go_on()
        except BaseException:
            self._lines.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not (self.n_rows or self.finished):  # there is nothing to go on with
            for path in (self.partial, self.journal):
                with suppress(OSError):
                    path.unlink()
        self._lines.close()

    def append(self, table: Any) -> None:
        """Write some rows, and note that they are there."""
        with self._explained():
            self._append(table)

    def _append(self, table: Any) -> None:
        parquet = arrow("pyarrow.parquet")
        with self._opened() as file:
            sink = arrow().PythonFile(_After(file, self._end), mode="w")
            with parquet.ParquetWriter(sink, self.schema, **self.options) as writer:
                _advance(sink, self._end - len(_MAGIC))
                writer.write_table(table, row_group_size=len(table))
        found, footer = parquet.read_metadata(self.partial), io.BytesIO()
        _check_place(found.row_group(0), self._end)
        found.write_metadata_file(footer)
        end = _without_footer(self.partial)
        self._note_line(
            {
                "end": end,
                "crc": _checksum(self.partial, self._end, end),
                "rows": len(table),
                "footer": base64.b64encode(footer.getvalue()).decode(),
            }
        )
        self._footers.append(footer.getvalue())
        self._end, self.n_rows = end, self.n_rows + len(table)

    def finish(self, *, keep: bool = False) -> None:
        """Put the footers together, and give the file its name; `keep` the journal, by which the same job knows it."""
        with self._explained():
            self._finish()
            if not keep:
                self.journal.unlink(missing_ok=True)

    def _finish(self) -> None:
        if not self.finished:
            with self._opened() as file:
                _write_all(file, self._footer()[len(_MAGIC) :])
                os.fsync(file.fileno())
                self._note_line({"finished": _marks(os.fstat(file.fileno()))})
            os.replace(self.partial, self.path)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The file of row groups, behind the last of them; it is an error if somebody else has put hands on it."""
        with open(self.partial, "r+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END) != self._end:
                raise RuntimeError(
                    f"{self.partial} has {file.tell()} bytes where {self._end} were written: another program changed "
                    "it; run the same command again, which goes on after the rows that are whole"
                )
            yield file

    def _footer(self) -> bytes:
        parquet, sink = arrow("pyarrow.parquet"), io.BytesIO()
        if not self._footers:
            parquet.write_table(_empty(self.schema), sink, **self.options)
            return sink.getvalue()
        whole, *others = (parquet.read_metadata(io.BytesIO(footer)) for footer in self._footers)
        for other in others:
            whole.append_row_groups(other)
        whole.write_metadata_file(sink)
        return sink.getvalue()

    def _go_on(self) -> None:
        """Take over what an earlier writer of the same job has finished; begin anew where there is nothing."""
        self._lines.seek(0)
        lines = self._lines.read().splitlines(keepends=True)
        told = [_parsed(line) for line in lines]
        if told and told[0] != {"job": self.job}:
            self.note = "what an earlier run left is of another input, calibrator or version, and begun anew"
            told = []
        elif told and not self.partial.exists():
            self.finished = _is_file(self.path, told[-1])
            told = told if self.finished else []
        kept = len(lines[0]) if told else 0
        for line, entry in zip(lines[1:], told[1:], strict=False):
            if self.finished or not self._take_over(entry):
                break
            kept += len(line)
        if not self.finished:
            self._restore(kept)

    def _take_over(self, entry: Any) -> bool:
        """Whether a row group lies where its line says, as it was written."""
        if not entry or "crc" not in entry:
            return False
        if _checksum(self.partial, self._end, entry["end"]) != entry["crc"]:
            return False
        self._footers.append(base64.b64decode(entry["footer"]))
        self._end, self.n_rows = entry["end"], self.n_rows + entry["rows"]
        return True

    def _restore(self, kept: int) -> None:
        """Cut off what no line of the journal speaks of."""
        self._lines.truncate(kept)
        if not kept:
            self._note_line({"job": self.job})
        with open(self.partial, "r+b" if kept else "wb") as file:
            file.write(_MAGIC)
            file.truncate(self._end)

    def _note_line(self, entry: Mapping[str, Any]) -> None:
        told = json.dumps(entry).encode()
        _write_all(self._lines, b"%08x %s\n" % (zlib.crc32(told), told))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """A full disk, say, is an error that tells what is kept."""
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror or error}: {self.n_rows} rows are kept in {self.partial}; run the same command again "
                "to go on after them",
                str(self.path),
            ) from error


class _After(io.RawIOBase):
    """Writes to the end of a file what comes after its first bytes, which are there.

    A Parquet writer begins at the place 0, and notes where in the file each column is; so that it notes the right
    places, it is made to believe that it has written what is there.
    """

    def __init__(self, file: IO[bytes], there: int) -> None:
        self.file, self.left = file, there

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        cut = min(len(view), self.left)
        self.left -= cut
        _write_all(self.file, view[cut:])
        return len(view)


def _write_all(file: IO[bytes], data: Any) -> None:
    """Write to an unbuffered file, which may take a part at a time."""
    written = 0
    while written < len(data):
        written += file.write(data[written:])


def _advance(sink: Any, n: int) -> None:
    """Move a sink on by n bytes, whose memory is reserved and never touched."""
    nothing = arrow().py_buffer(np.empty(min(n, _STEP), dtype=np.uint8))
    for start in range(0, n, _STEP):
        sink.write(nothing.slice(0, min(n - start, _STEP)))


def _check_place(group: Any, start: int) -> None:
    """That the footer of a row group speaks of the place where it was written."""
    column = group.column(0)
    noted = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
    if noted != start:
        raise RuntimeError(f"this version of pyarrow notes a row group at byte {noted} that is at {start}")


def _without_footer(path: Path) -> int:
    """Cut the footer off a Parquet file; the size of what is left."""
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        return file.truncate(file.seek(-8 - length, os.SEEK_END))


def _checksum(path: Path, start: int, end: int) -> int | None:
    """Of a piece of a file; None where the file is too short."""
    crc = 0
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while start < end:
            block = file.read(min(_READ, end - start))
            if not block:
                return None
            crc, start = zlib.crc32(block, crc), start + len(block)
    return crc


def _is_file(path: Path, entry: Any) -> bool:
    """Whether a file is the one that a journal says is finished: it was killed before it could remove the journal."""
    return bool(entry) and path.exists() and entry.get("finished") == _marks(path.stat())


def _marks(about: os.stat_result) -> list[int]:
    """What stays as it was while a file is renamed; the number alone may be that of a later file."""
    return [about.st_ino, about.st_size, about.st_mtime_ns]


def _parsed(line: bytes) -> Any:
    """A line of the journal; None of one that is not as it was written, or not to its end."""
    crc, _, told = line.removesuffix(b"\n").partition(b" ")
    return json.loads(told) if line.endswith(b"\n") and crc == b"%08x" % zlib.crc32(told) else None


def _locked(journal: Path, output: Path) -> IO[bytes]:
    """The journal, open and locked until this process ends; it may have been finished by another meanwhile."""
    try:
        import fcntl
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"{output} cannot be locked against a second writer: this system has no flock; run the command on Linux, "
            "macOS or WSL, or transform rows in Python: load_pipeline(calibrator).transform(Items(...))"
        ) from error
    while True:
        file = open(journal, "a+b", buffering=0)  # noqa: SIM115 (open for as long as the job)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), journal.stat()):
                    return file
        except BlockingIOError as error:
            file.close()
            raise RuntimeError(f"another process is writing {output}; wait for it, or write to another file") from error
        except OSError as error:
            file.close()
            raise OSError(
                error.errno,
                f"{error.strerror}: its file system has no locks; write to another, and move it",
                str(output),
            ) from error
        file.close()


def _empty(schema: Any) -> Any:
    """A table without rows; `schema.empty_table()` cannot make one of every type."""
    return arrow().Table.from_batches([], schema=schema)


def writer_options(schema: Any, plain: tuple[str, ...]) -> dict[str, Any]:
    """How columns are written: vectors plain, since they are as good as random, others compressed, with statistics."""
    sink, parquet = io.BytesIO(), arrow("pyarrow.parquet")
    parquet.write_table(_empty(schema), sink)
    found = parquet.read_metadata(sink).schema
    leaves = [found.column(i) for i in range(len(found))]
    vectors = {f"{name}{_NESTED}" for name in plain}
    others = [leaf for leaf in leaves if leaf.path not in vectors]
    return {
        "compression": {leaf.path: "none" if leaf.path in vectors else "snappy" for leaf in leaves},
        "write_statistics": [leaf.path for leaf in others],
        "use_dictionary": [leaf.path for leaf in others if leaf.physical_type in ("BYTE_ARRAY", "INT32", "INT64")],
    }
