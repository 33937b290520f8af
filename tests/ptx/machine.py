"""Translated PTX, loaded: its entries are launched, and what they executed is counted."""

import contextlib
import ctypes
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from torch import Tensor

from ptx import build


class PtxError(RuntimeError):
    """What a kernel did that it may not."""


@cache
def machine() -> ctypes.CDLL:
    """The one that all entries of this process run on."""
    found = ctypes.CDLL(str(build.machine()), mode=ctypes.RTLD_GLOBAL)
    found.ptx_run.restype = ctypes.c_char_p
    return found


@dataclass(eq=False)
class Library:
    """A module: entries by name, with the size of their parameters."""

    path: Path
    parameters: dict[str, int]
    shared: int
    counters: list[list[int]]
    sources: dict[str, str] = field(repr=False)
    loaded: ctypes.CDLL = field(repr=False)
    label: str = ""  # what is counted together

    def address(self, entry: str) -> int:
        """Of its function."""
        return ctypes.cast(getattr(self.loaded, entry), ctypes.c_void_p).value or 0

    def launch(
        self, entry: str, parameters: bytes, blocks: int, threads: int, shared: int = 0
    ) -> None:
        """Run a grid.

        Raises:
            PtxError: the kernel did something that it may not.
        """
        self.add(entry, parameters, blocks, threads, shared)
        run()

    def add(
        self, entry: str, parameters: bytes, blocks: int, threads: int, shared: int = 0
    ) -> None:
        """A grid that runs with the next ``run``; a second one may begin while the first runs."""
        if len(parameters) != self.parameters[entry]:
            raise PtxError(f"{entry}: {len(parameters)} bytes of parameters")
        if not blocks or not 0 < threads <= 1024:
            raise PtxError(f"{entry}: {blocks} blocks of {threads} threads")
        _libraries[:] = [self, *(one for one in _libraries if one is not self)][:8]
        machine().ptx_add(
            entry.encode(),
            ctypes.c_void_p(self.address(entry)),
            parameters,
            ctypes.c_uint64(len(parameters)),
            *(blocks, threads, self.shared + shared),
        )

    def numbered(self) -> list[tuple[int, str]]:
        """Its PTX, line by line."""
        return list(enumerate(self.path.with_suffix(".ptx").read_text().splitlines(), 1))

    def flags(self) -> list[int]:
        """Of each counter, whether its lines were executed."""
        return list((ctypes.c_ubyte * len(self.counters)).in_dll(self.loaded, "ptx_seen"))


_all: list[Library] = []


def loaded() -> list[Library]:
    """Of this process."""
    return _all


@cache
def load(ptx: str, label: str = "") -> Library:
    """Of a text of PTX, compiled where it is new."""
    machine()
    path = build.library(ptx)
    facts = json.loads(path.with_suffix(".json").read_text())
    library = Library(
        path,
        facts["parameters"],
        facts["shared"],
        facts["counters"],
        facts["sources"],
        ctypes.CDLL(str(path)),
        label,
    )
    _all.append(library)
    return library


def run() -> None:
    """All grids that were added.

    Raises:
        PtxError: a kernel did something that it may not.
    """
    failed = machine().ptx_run()
    if failed:
        raise PtxError(explained(failed.decode()))


_libraries: list["Library"] = []


def explained(message: str) -> str:
    """With the lines of the sources beside those of PTX."""
    entry = message.split(",")[0].split(":")[0]
    library = next((one for one in _libraries if entry in one.parameters), None)
    if library is None:
        return message
    sources = library.sources

    def told(line: re.Match[str]) -> str:
        return f"{line[0]} [{sources[line[1]]}]" if line[1] in sources else line[0]

    return re.sub(r"line (\d+)", told, message)


def seed(number: int) -> None:
    """The order of blocks and threads from here on."""
    machine().ptx_seed(ctypes.c_uint64(number))


POISON = 0xA5


@contextlib.contextmanager
def checked(weakened: Iterable[int] = ()) -> Iterator[None]:
    """Within it memory is weak, and races and wrong accesses are errors.

    ``weakened``: lines of PTX whose fence, barrier or way around the first cache is ignored.
    """
    machine().ptx_check(True)
    for line in weakened:
        machine().ptx_weaken(line)
    try:
        yield
    finally:
        machine().ptx_check(False)


def mean(line: int, other: int) -> None:
    """No race of these two lines is an error, until checks end."""
    machine().ptx_mean(line, other)


def allocations(tensors: Iterable[Tensor], fresh: Iterable[Tensor] = ()) -> None:
    """All the memory that the next launches may touch; of fresh ones, poison was never written."""
    machine().ptx_forget_allocations()
    unwritten = {tensor.untyped_storage().data_ptr() for tensor in fresh}
    for storage in {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}.values():
        start = ctypes.c_uint64(storage.data_ptr())
        size = ctypes.c_uint64(storage.nbytes())
        machine().ptx_allocation(start, size, storage.data_ptr() in unwritten, POISON)
