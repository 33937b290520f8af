"""Compiles the Triton kernels to PTX for a chip that is not there; a process of its own.

The tests' own process has Triton as an interpreter. Reads a line of JSON for each kernel from
standard input: its name, target, constants (by the order of the kernel's arguments) and the indices
of arguments whose address is a multiple of 16, as Triton's launch would tell it. Writes a line
with PTX, shared memory and warps, or an error.
"""

import json
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "triton")]
if __name__ == "__main__":  # not where somebody imports this, to look for doctests
    os.environ.pop("TRITON_INTERPRET", None)

DIVISIBLE = [["tt.divisibility", 16]]


def nested(constants):
    """Tuples, where JSON has lists."""
    return tuple(map(nested, constants)) if isinstance(constants, list) else constants


def compiled(request):
    """The answer to one request."""
    import compiling
    import triton
    from triton.compiler import ASTSource

    kernels = (compiling.apply_kernel, compiling.measure_kernel, compiling.plan_kernel)
    kernel = {kernel.__name__: kernel for kernel in kernels}[request["kernel"]]
    constants = nested(request["constants"])
    names = kernel.arg_names[len(kernel.arg_names) - len(constants) :]
    given = dict(zip(names, constants, strict=True))
    signature = {name: compiling.argument_type(name, given) for name in kernel.arg_names}
    attributes = {tuple(path): DIVISIBLE for path in request["aligned"]}
    options = {"enable_fp_fusion": False, "num_warps": 4}
    source = ASTSource(kernel, signature, given, attributes)
    found = triton.compile(source, target=compiling.target_of(request["target"]), options=options)
    facts = {"shared": found.metadata.shared, "warps": found.metadata.num_warps}
    return {"ptx": found.asm["ptx"], **facts}


def main():
    for line in sys.stdin:
        try:
            answer = compiled(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
