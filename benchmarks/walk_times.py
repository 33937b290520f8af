"""Whether a step of many small tensors is quick with this torch: there the walk is what counts.

    python benchmarks/walk_times.py [--seconds 5]

Prints one line of JSON: how the walk asks torch where tensors lie (null: there is no walk), and for
each case the median microseconds of torch's pipeline and of lrfused, which take turns, and their
ratio. All by one thread, and for so many seconds a case.
"""

import argparse
import json
import time
from itertools import count
from statistics import median
from typing import Any

import torch
from data import Data, Settings
from device import Cpu
from providers import PROVIDERS
from timing import Contestant, compete, ratio
from workloads import CLIP, Case, find

from lrfused import native

CASES = {
    "tensors148": "tiny148",
    "tensors148_fresh": "tiny148-fresh",
    "tensors1000": "tiny1000",
    "tensors1000_fresh": "tiny1000-fresh",
}
TORCH, OURS = "fused", "lrfused"
LEAST, MOST = 3, 101  # rounds


def measure(workload: str, seconds: float) -> dict[str, float]:
    """Both providers over the same tensors, in turns."""
    settings = Settings()
    data = Data(Case(find(workload), torch.float32, CLIP), settings)
    contestants = {}
    for name in (TORCH, OURS):
        params = data.parameters()
        pipeline = PROVIDERS[name].build(params, CLIP, settings)
        contestants[name] = Contestant(pipeline.step, params, data)
    end = time.monotonic() + seconds
    turns = compete(contestants, MOST, Cpu(), lambda: None)
    for taken, _ in zip(count(1), turns, strict=False):
        if time.monotonic() > end and taken % 2 == 0 and taken >= 2 * LEAST:
            break
    theirs, own = (contestants[name].turns for name in (TORCH, OURS))
    return {
        "ratio": round(ratio(theirs, own).median, 2),
        "torch_us": round(1e6 * median(theirs), 1),
        "lrfused_us": round(1e6 * median(own), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {key: measure(name, options.seconds) for key, name in CASES.items()}
    found["walk"] = next(iter(native.tensor_readers), None)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
