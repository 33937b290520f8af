"""docs/compatibility.md, written from the result files of `make compat`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compat.stacks import PTX, STACKS, TRITONS, Stack

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
RESULTS = ROOT / "benchmarks" / "results" / "compat"
HEAD = """\
# Compatibility

What was run on which versions, by `make compat` on a machine without a GPU. Written from the files
in `benchmarks/results/compat` by `make compat ARGS=--page`; a row is as old as its date says.

- **kernels**: every Triton kernel compiled with every option on and off, for float16, bfloat16,
  float32, float64 and a mixture, for sm_80, sm_90, sm_100 and gfx942 (as far as assembly goes).
- **interpreter**: the Triton backend's tests with its kernels interpreted.
- **CPU**: the tests of contract, step, schedules, from_torch and faults with the backends
  `reference` and `cpu`.
- **148, 1000 tensors**: how many times as long as lrfused torch's `clip_grad_norm_` and fused AdamW
  take for tensors of 64 elements, with gradients kept and fresh; below 1 would be "slow".
- **make gpu**: its dry run, in a copy of the tree where lrfused is neither installed nor
  importable.
"""


def page() -> str:
    """The whole page."""
    columns = ("Python", "torch", "Triton", "numpy", "kernels", "interpreter", "CPU")
    columns += ("148 tensors", "1000 tensors", "make gpu", "date, commit")
    rows = [_row(columns), _row(["---"] * len(columns))]
    rows += [_row(_cells(stack, read(stack.name))) for stack in STACKS]
    return "\n".join([HEAD, *rows, "", *_notes(), "", *_wheels()]) + "\n"


def read(name: str) -> dict[str, Any]:
    """A result file; empty where there is none."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(stack: Stack, record: dict[str, Any]) -> list[str]:
    parts = record.get("parts", {})
    cells = [stack.python, stack.torch, stack.triton, stack.numpy]
    cells.append(_cell(parts.get("kernels"), "compiled"))
    cells.append(_cell(parts.get("interpreter"), "passed"))
    cells.append(_cell(parts.get("on_cpu"), "passed"))
    cells += [_times(parts.get("times"), case) for case in ("tensors148", "tensors1000")]
    cells.append(_cell(parts.get("rehearsal"), None))
    return [*cells, _origin(parts)]


def _cell(part: dict[str, Any] | None, count: str | None) -> str:
    if part is None:
        return "not run"
    if part["status"] != "passed":
        return f"**{part['status']}**: {part['reason']}"
    return "passed" if count is None else f"{part[count]} {count}"


def _times(part: dict[str, Any] | None, case: str) -> str:
    if part is None or case not in part:
        return _cell(part, None)
    ratios = [part[name]["ratio"] for name in (case, f"{case}_fresh")]
    text = " / ".join(f"{ratio:.1f}" for ratio in ratios)
    return text if min(ratios) >= 1.0 else f"**slow**: {text}"


def _origin(parts: dict[str, Any]) -> str:
    """The oldest part's: a part may have been run again by itself."""
    if not parts:
        return ""
    oldest = min(parts.values(), key=lambda part: part["date"])
    return f"{oldest['date'][:10]}, {oldest['commit'][:10]}"


def _notes() -> list[str]:
    """What the table has no room for."""
    lines = [
        "- Up to Triton 3.6 the interpreter takes NumPy up to 2.3 only (`int()` of an array of one",
        "  element); tests/lib/interpreting.py mends that, so these tests ran with the NumPy of",
        "  the table. Kernels on a GPU do not know NumPy.",
    ]
    for stack in STACKS:
        unknown = read(stack.name).get("parts", {}).get("kernels", {}).get("unknown_targets", {})
        for target, reason in unknown.items():
            lines.append(f"- Triton {stack.triton} does not compile for {target}: {reason}.")
    return lines


def _wheels() -> list[str]:
    lines = [
        "Triton's wheels alone, beside the pinned torch, kernels for sm_90 (every CI run):",
        "",
    ]
    parts = read("triton-wheels").get("parts", {})
    for version in TRITONS:
        part = parts.get(version)
        origin = f" ({_origin({version: part})})" if part else ""
        lines.append(f"- {version}: {_cell(part, 'compiled')}{origin}")
        if executed := parts.get(f"{version} {PTX}"):
            lines[-1] += f"; of its PTX, run on the CPU, {_cell(executed, 'passed')} tests"
    return lines


def write() -> None:
    PAGE.write_text(page(), encoding="utf-8")
