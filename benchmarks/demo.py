"""Train a small GPT with torch's pipeline and with lrfused, compare, and draw a picture.

    python benchmarks/demo.py [--steps 600] [--seed 0] [--device cpu] [--out picture.png]

Both runs start from the same seed and see the same batches; only rounding tells them apart.
Exits with 1 if the losses differ by more than LIMIT at any step. Needs no download: the text
is the Python standard library's own sources.
"""

import argparse
import os
import sys
from pathlib import Path
from statistics import mean, median

import torch
from demo_data import Corpus, encode, read_sources
from demo_model import GPT, Shape
from demo_picture import draw
from demo_training import (
    FusedPipeline,
    Run,
    Settings,
    TorchPipeline,
    loss_differences,
    train,
)

import lrfused

LIMIT = 1e-3
LAST = 20
FEWEST_STEPS = LAST
PICTURE = Path(__file__).resolve().parents[1] / "demo" / "lrfused-demo.png"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.device.type == "cuda":
        make_deterministic()
    corpus = encode(read_sources())
    settings = Settings(
        shape=Shape(vocabulary=len(corpus.vocabulary)),
        device=options.device,
        steps=options.steps,
        seed=options.seed,
        half=options.device.type == "cuda",
    )
    return compare(settings, corpus, options.out)


def compare(settings: Settings, corpus: Corpus, picture: Path) -> int:
    """Both trainings, the table, the picture and the verdict as an exit code."""
    print(describe(settings, corpus), flush=True)
    torch_run, fused_run = train((TorchPipeline, FusedPipeline), settings, corpus)
    print(table(torch_run, fused_run, settings))
    draw(torch_run, fused_run, settings, LIMIT, picture)
    print(f"picture: {picture}")
    return verdict(torch_run, fused_run)


def verdict(torch_run: Run, fused_run: Run) -> int:
    """0 if the losses coincide; otherwise 1, and what is wrong on stderr."""
    for step, difference in enumerate(loss_differences(torch_run, fused_run)):
        if not difference <= LIMIT:  # a nan is a failure too
            losses = f"{torch_run.losses[step]} with torch, {fused_run.losses[step]} with lrfused"
            print(
                f"FAILED: the losses differ by {difference:.2e} at step {step} ({losses}), "
                f"the limit is {LIMIT:g}",
                file=sys.stderr,
            )
            return 1
    return 0


def describe(settings: Settings, corpus: Corpus) -> str:
    shape = settings.shape
    parameters = sum(p.numel() for p in GPT(shape).parameters())
    on_gpu = settings.device.type == "cuda"
    device = torch.cuda.get_device_name(settings.device) if on_gpu else "CPU"
    threads = "" if on_gpu else f", {torch.get_num_threads()} threads"
    precision = "float16 autocast with loss scaling" if settings.half else "float32"
    return (
        f"lrfused {lrfused.info().version}, torch {torch.__version__}, "
        f"{device}{threads}, {precision}\n"
        f"GPT of {parameters:,} parameters, {len(corpus.train):,} characters of Python, "
        f"{settings.steps} steps of {settings.batch} x {shape.block}"
    )


def table(torch_run: Run, fused_run: Run, settings: Settings) -> str:
    """Both runs side by side, and how far apart their losses are."""
    differences = loss_differences(torch_run, fused_run)
    largest = max(differences)
    tokens = settings.batch * settings.shape.block
    columns = [
        [
            run.name,
            f"{run.losses[0]:.4f}",
            f"{mean(run.losses[-LAST:]):.4f}",
            f"{run.validation_loss:.4f}",
            f"{1e3 * median(run.optimizer_seconds):.3f}",
            f"{tokens / median(run.step_seconds):,.0f}",
            str(run.clipped_steps),
            str(run.skipped_steps),
        ]
        for run in (torch_run, fused_run)
    ]
    labels = [
        "",
        "first loss",
        f"final loss (mean of the last {LAST})",
        "validation loss",
        "optimizer time a step (median, ms)",
        "tokens/s (median step)",
        "clipped steps",
        "skipped steps",
    ]
    rows = [f"{label:<36}{a:>12}{b:>12}" for label, a, b in zip(labels, *columns, strict=True)]
    rows.append(
        f"largest loss difference {largest:.2e}, at step {differences.index(largest)} "
        f"(limit {LIMIT:g})"
    )
    return "\n".join(rows)


def make_deterministic() -> None:
    """Let a GPU add in a fixed order, so that the pipelines differ by their own rounding only."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=_steps, default=600, help="updates of each run (600)")
    parser.add_argument("--seed", type=_seed, default=0, help="of weights and batches (0)")
    parser.add_argument(
        "--device",
        type=_device,
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="cpu, cuda or cuda:N (a GPU if there is one)",
    )
    parser.add_argument("--out", type=_picture, default=PICTURE, help=f"PNG file ({PICTURE})")
    return parser.parse_args(arguments)


def _whole(text: str, minimum: int, maximum: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = minimum - 1
    if not minimum <= value <= maximum:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {minimum} to {maximum}, got {text!r}"
        )
    return value


def _steps(text: str) -> int:
    return _whole(text, FEWEST_STEPS, 1_000_000)


def _seed(text: str) -> int:
    return _whole(text, 0, 2**63 - 1)


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not there: torch sees {torch.cuda.device_count()} GPUs"
        )
    return device


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file that ends in .png, got {text!r}")
    return path


if __name__ == "__main__":
    sys.exit(main())
