"""What lrfused does on other versions of Python, torch, Triton and numpy: `make compat`.

    python tests/compat/run.py [--stacks NAME,...] [--parts kernels,times,...] [--page] [--ci]

Each stack of stacks.py gets an environment and a copy of the tree of its own, kept in COMPAT_HOME
(~/.cache/lrfused/compat). Every part of a stack is written to benchmarks/results/compat as soon as
it is done, then docs/compatibility.md from all of them. Exits with 1 if a part failed or is slow.
"""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "benchmarks")]

import result_files  # noqa: E402
from compat import page, parts, stacks  # noqa: E402
from compat.environments import Unavailable, prepare, triton_wheel  # noqa: E402
from compat.parts import NOT_RUN, PARTS, Found  # noqa: E402
from compat.stacks import EXECUTED, PTX, STACKS, TRITONS, Stack  # noqa: E402

# What CI does beside `make test`, which has the tests of the pinned stack.
CI_PARTS = ("times", "rehearsal")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    bad = []
    if not options.page:
        for stack in STACKS:
            if stack.name in options.stacks:
                bad += run_stack(stack, options.parts, options.jobs, options.results)
        if not options.no_wheels:
            bad += run_wheels(options.jobs, options.results)
    if options.results == page.RESULTS:
        page.write()
    print(f"not well: {', '.join(bad)}" if bad else "all is well")
    return 1 if bad else 0


def run_stack(stack: Stack, names: Sequence[str], jobs: int, results: Path) -> list[str]:
    """The parts of a stack; returned are those that are not well."""
    why_not = None
    try:
        prepare(stack)
    except Unavailable as error:
        why_not = str(error)
    bad = []
    for part in PARTS:
        if part.name not in names:
            continue
        found = {"status": NOT_RUN, "reason": why_not} if why_not else part.run(stack, jobs)
        note(results / f"{stack.name}.json", part.name, found, {"stack": vars(stack)})
        bad += told(f"{stack.name} {part.name}", found)
    return bad


def run_wheels(jobs: int, results: Path) -> list[str]:
    """The kernels by other Tritons than the pinned one: compiled, and for some their PTX run."""
    (pinned,) = (stack for stack in STACKS if stack.is_pinned)
    prepare(pinned)
    bad = []
    for version in TRITONS:
        try:
            wheel = triton_wheel(version)
            found = {version: parts.compile_kernels(pinned, "sm_90", wheel)}
            if version in EXECUTED:
                found[f"{version} {PTX}"] = parts.executed(pinned, jobs, wheel)
        except Unavailable as error:
            found = {version: {"status": NOT_RUN, "reason": str(error)}}
        for name, part in found.items():
            note(results / "triton-wheels.json", name, part, {})
            bad += told(f"Triton {name}", part)
    return bad


def told(what: str, found: Found) -> list[str]:
    """Say what became of it; what is not well is returned."""
    print(f"{what}: {found['status']} {found['reason']}", flush=True)
    return [] if found["status"] == parts.PASSED else [what]


def note(path: Path, name: str, found: Found, about: Found) -> None:
    """A part's outcome, in the file of its stack."""
    head = result_files.head()
    commit = f"{head['commit']['hash']}{'-dirty' if head['commit']['dirty'] else ''}"
    record = json.loads(path.read_text()) if path.exists() else {}
    record |= {"schema": result_files.SCHEMA, "kind": "compat", **about}
    here = {
        "date": head["date"],
        "commit": commit,
        "machine": f"{processor()}, {os.cpu_count()} cores",
    }
    record.setdefault("parts", {})[name] = {**found, **here}
    result_files.write(record, path)


def processor() -> str:
    """Of what family and model it is."""
    found = re.findall(r"^(?:cpu family|model|model name)\s*: (.*)$", _cpuinfo(), re.MULTILINE)
    return " ".join(found[:3]) or platform.machine()


def _cpuinfo() -> str:
    place = Path("/proc/cpuinfo")
    return place.read_text() if place.exists() else ""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    about = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(description=about)
    names = [stack.name for stack in STACKS]
    known = [part.name for part in PARTS]
    parser.add_argument("--stacks", type=_list(names), default=names, help="all, or by name")
    parser.add_argument("--parts", type=_list(known), default=known, help=", ".join(known))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="of tests at a time")
    parser.add_argument("--no-wheels", action="store_true", help="not the kernels by other Tritons")
    parser.add_argument("--page", action="store_true", help="only write docs/compatibility.md")
    parser.add_argument("--ci", action="store_true", help="what CI does; the tree is left as it is")
    options = parser.parse_args(arguments)
    options.results = page.RESULTS
    if options.ci:
        options.stacks = [stack.name for stack in stacks.STACKS if stack.is_pinned]
        options.parts = CI_PARTS
        options.results = Path(os.environ.get("RESULTS_DIR") or TESTS.parent / "build" / "compat")
    return options


def _list(known: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}, got {name!r}")
        return text.split(",")

    return read


if __name__ == "__main__":
    sys.exit(main())
