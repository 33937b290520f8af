"""The stages of `make gpu`, the most telling first.

CUDA comes before Triton everywhere, and nothing compiles a Triton kernel before CUDA's stages are
over. In a dry run the C++ backend stands in for CUDA and Triton's kernels are interpreted; what
would only show the same again is left out.
"""

from gpu_stage import Stage, a_gpu, sanitizer, script, tests, the, times

EQUALITY = "tests/gpu/test_gpu_equality.py"
GRAPHS = "tests/gpu/test_gpu_graphs.py"
OTHERS = ("tests/gpu", "--ignore", EQUALITY, "--ignore", GRAPHS)
FEW = (EQUALITY, "-k", "squares or aligned")  # kernels of one dtype each: they compile soon

CUDA = "lrfused-cuda,fused,foreach,lrfused-cuda-serial-launch,lrfused-cuda-own-carveout"
TRITON = "lrfused-triton,fused,foreach"
BOTH = "lrfused-cuda,fused,lrfused-triton"
PEERS = "lrfused-cuda,fused,lrfused-triton,optimi,flashoptim,torchao,bitsandbytes,apex"
PEERS += ",transformer-engine,deepspeed-fused,compile"
GPT2 = "--workloads gpt2 --forms unscale,clip --rounds 5"
EVERY_RULE = GPT2.replace("gpt2", "gpt2,gpt2-sgd,gpt2-lion")  # AdamW first
TINY = "--workloads tiny148,tiny148-fresh,tiny1000,tiny1000-fresh --forms clip --rounds 5"
ALL = "--workloads gpt2,gpt2-sgd,gpt2-lion,gpt3,tiny1000,tiny1000-fresh"
ALL += " --forms clip,unscale,step --rounds 5"
RIDDEN = "--workloads gpt2-average,gpt2-masks,gpt2-zero-grads --forms clip --rounds 5"
LARGEST = "--workloads llama-7b,gpt2,medium2000 --rounds 5"

SAME_HARNESS = "the harness is that of CUDA times"
SAME_STEPS = "the steps are those of memcheck"
SAME_TESTS = "make test interprets the kernels, and CUDA's stages have these tests"

# Limits are twice what a stage took on an H200 where that is little, less where it is much.
# This is less than a stage is begun with: there has to be time that others left.
SPARE = 3

build = script("setup.py", "build_ext", "--inplace")
phases, facts = "benchmarks/gpu_phases.py", "benchmarks/gpu_facts.py"

STAGES = [
    # The first to import torch: its libraries may have to come from a slow disk.
    Stage("versions", script(facts, "versions", out="gpu-facts.json"), 30),
    # Apart, so that a failed nvcc does not take the C++ module with it.
    Stage("build C++", build, 20, variables={"LRFUSED_CUDA": "never"}),
    Stage(
        "build CUDA",
        build,
        30,
        a_gpu,
        {"LRFUSED_CUDA": "required"},
        dry="the C++ backend stands in for it",
    ),
    Stage("backends", script(facts, "backends", out="gpu-facts.json"), 15, shows=10),
    # CUDA alone.
    tests("CUDA equality", "gpu-equality.json", 58, "cuda", EQUALITY),
    tests("CUDA graphs", "gpu-graphs.json", 30, "cuda", GRAPHS),
    Stage(
        "CUDA phases",
        script(phases, out="gpu-phases.json"),
        15,
        the("cuda"),
        dry="tests/make_gpu/test_phases.py emulates them",
        shows=10,
    ),
    times(
        "CUDA times without lag",
        "gpu-first-hidden.json",
        30,
        CUDA,
        GPT2,
        device="gpu-hidden",
        dry=SAME_HARNESS,
    ),
    times("CUDA times", "gpu-first.json", 30, CUDA, EVERY_RULE),
    times("host times", "gpu-host.json", 30, "lrfused-cuda,fused", TINY, dry=SAME_HARNESS),
    sanitizer("memcheck", 15),
    sanitizer("racecheck", 15, dry=SAME_STEPS),
    # Triton.
    tests("Triton few dtypes", "gpu-triton-few.json", 30, "triton", *FEW, most=100),
    tests(
        "Triton equality",
        "gpu-triton-equality.json",
        20,
        "triton",
        EQUALITY,
        most=100,
        dry=SAME_TESTS,
        takes_spare=True,
    ),
    times("Triton times", "gpu-first-triton.json", 25, TRITON, GPT2, dry=SAME_HARNESS),
    # The rest.
    times("all times", "gpu.json", 10, BOTH, ALL, dry=SAME_HARNESS, takes_spare=True),
    tests("other CUDA tests", "gpu-tests.json", 25, "cuda", *OTHERS, most=120, takes_spare=True),
    tests(
        "other Triton tests",
        "gpu-triton-tests.json",
        45,
        "triton",
        *("tests/gpu", "--ignore", EQUALITY),
        most=120,
        dry=SAME_TESTS,
        takes_spare=True,
    ),
    Stage(
        "Triton phases",
        script(phases, "--backend", "triton", out="gpu-triton-phases.json"),
        22,
        the("triton"),
        dry="tests/make_gpu/test_phases.py emulates them",
        takes_spare=True,
        shows=10,
    ),
    Stage(
        "first step",
        script("benchmarks/first_step.py"),
        SPARE,
        the("triton"),
        least=25,
        dry="nothing is compiled at a first step on a CPU",
        takes_spare=True,
        shows=10,
    ),
    times(
        "riders",
        "gpu-riders.json",
        SPARE,
        BOTH,
        RIDDEN,
        takes_spare=True,
        least=25,
    ),
    sanitizer("initcheck", 10, dry=SAME_STEPS, takes_spare=True),
    sanitizer("synccheck", 10, dry=SAME_STEPS, takes_spare=True),
    times(
        "larger models and peers",
        "gpu-more.json",
        SPARE,
        PEERS,
        LARGEST,
        dry=SAME_HARNESS,
        takes_spare=True,
        least=60,
    ),
]
