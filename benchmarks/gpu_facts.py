"""What a GPU run finds on its machine: versions before the build, backends after it.

    python benchmarks/gpu_facts.py versions|backends [--out FILE]

Adds to the JSON file. Exits with 1 where something is missing: a GPU (a dry run needs none); the
C++ module, the walk over gradients; where a GPU is, the CUDA backend.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import result_files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "triton", "numpy", "setuptools", "pybind11", "ninja", "pytest")
PACKAGES += ("pytest-xdist", "pytest-timeout", "hypothesis", "mpmath", "tqdm")
TOOLS = {"nvcc": ["nvcc", "--version"], "compiler": ["c++", "--version"]}
TOOLS["driver"] = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
TOOLS["sanitizer"] = ["compute-sanitizer", "--version"]


def versions() -> dict[str, Any]:
    """Python, packages, tools, and the GPU that torch sees; nothing of lrfused."""
    import torch

    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _package(name) for name in PACKAGES},
            "torch's CUDA": torch.version.cuda,
            **{name: _tool(command) for name, command in TOOLS.items()},
        },
        "cores": os.cpu_count(),
        "gpu": _gpu(torch) if torch.cuda.is_available() else None,
    }


def backends() -> dict[str, Any]:
    """Why each backend is missing (None: it is there), and whether the walk can look."""
    sys.path.insert(0, str(ROOT))
    from lrfused.backends.registry import BACKENDS
    from lrfused.device.discovery import gpus

    found = {name: _why_not(backend, gpus) for name, backend in BACKENDS.items()}
    print(*(f"{name}: {reason or 'there'}" for name, reason in found.items()), sep="\n")
    known = {"backends": found, "walk": _walks()}
    if "LRFUSED_GPU_DRY_RUN" in os.environ and found["triton"] is None:
        import interpreter

        known["interpreter"] = interpreter.why_not()
    return known


def _walks() -> bool:
    """The C++ walk looks at a step's tensors, with this torch."""
    import torch

    import lrfused

    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = lrfused.AdamW([param])
    for _ in range(2):
        optimizer.step()
    table = optimizer._engine.table
    return table is not None and table.guard is not None


def _why_not(backend: Any, gpus: Any) -> str | None:
    """One that breaks while it is asked (another Triton than it knows) says nothing of others."""
    try:
        reason: str | None = backend.why_unavailable()
        on_gpus = gpus() if backend.reads_on_device and reason is None else []
        return reason or next(filter(None, (backend.why_not_on(d) for d in on_gpus)), None)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def missing(facts: dict[str, Any], dry: bool) -> list[str]:
    """What a run cannot go without."""
    reasons = [] if facts["gpu"] or dry else ["no GPU is seen"]
    if "backends" in facts:
        needed = ["cpu"] if facts["gpu"] is None else ["cpu", "cuda"]
        why = {name: facts["backends"][name] for name in needed}
        reasons += [f"{name} is not available: {reason}" for name, reason in why.items() if reason]
        reasons += [] if facts["walk"] else ["the walk over gradients cannot look"]
    return reasons


def _gpu(torch: Any) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(0)
    return {"name": found.name, "capability": f"{found.major}.{found.minor}"}


def _package(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tool(command: list[str]) -> str | None:
    """What a tool says of itself; None: it is not there."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip()[:300]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("versions", "backends"))
    parser.add_argument("--out", type=Path, default=result_files.folder() / "gpu-facts.json")
    options = parser.parse_args()
    dry = "LRFUSED_GPU_DRY_RUN" in os.environ
    if options.what == "backends" and options.out.exists():
        facts = json.loads(options.out.read_text())
    else:
        facts = {**result_files.head(), "kind": "facts", "dry_run": dry, **versions()}
    if options.what == "backends":
        facts |= {**backends(), "finished": True}
    result_files.write(facts, options.out)
    print(
        json.dumps(
            {
                name: facts[name]
                for name in ("versions", "gpu", "walk", "interpreter")
                if name in facts
            }
        )
    )
    reasons = missing(facts, dry)
    print(*reasons, sep="\n")
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
