"""The demo's text: the Python standard library's own sources, as character indices."""

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MINIMUM_CHARACTERS = 100_000
VALIDATION_SHARE = 0.05


@dataclass(frozen=True)
class Corpus:
    """Indices into a vocabulary of the characters that occur, and the split for validation."""

    train: Tensor
    validation: Tensor
    vocabulary: str


def read_sources(folder: Path | None = None) -> str:
    """The modules at the top of the standard library, in the order of their names.

    What is not ASCII becomes "?": it is rare, and would double the vocabulary.
    """
    folder = folder or Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"), key=lambda file: file.name)
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    text = "".join(texts).encode("ascii", errors="replace").decode("ascii")
    if len(text) < MINIMUM_CHARACTERS:
        raise RuntimeError(
            f"standard library: {folder} holds {len(text)} characters of *.py sources, the demo "
            f"needs {MINIMUM_CHARACTERS} (was this Python installed without its sources?)"
        )
    return text


def encode(text: str) -> Corpus:
    """The text as a corpus; its last part, files that training never sees, is for validation."""
    symbols, indices = np.unique(np.frombuffer(text.encode("ascii"), np.uint8), return_inverse=True)
    tokens = torch.from_numpy(indices.astype(np.int64))
    split = len(tokens) - int(len(tokens) * VALIDATION_SHARE)
    return Corpus(tokens[:split], tokens[split:], symbols.tobytes().decode("ascii"))


def draw_batches(tokens: Tensor, count: int, size: int, block: int, seed: int) -> Iterator[Tensor]:
    """``count`` batches of random windows, a pure function of the arguments.

    Yields:
        Tensors of shape (size, block + 1): ``block`` inputs, each followed by its target.
    """
    if len(tokens) <= block:
        raise ValueError(f"tokens: must be more than block ({block}), got {len(tokens)}")
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.arange(block + 1)
    for _ in range(count):
        yield tokens[torch.randint(len(tokens) - block, (size, 1), generator=generator) + offsets]
