"""Federated averaging: a learning rate on the server's clock of rounds, not on each client's own.

In a round, some of the clients start from the server's weights w, make K updates on their own data,
and send back the difference. It arrives up to D rounds later, and is then added:

    w <- w + sum over what arrived of (w_client - w of its round) / clients in a round
    server's clock: eta = cosine(round)      own clock: eta = cosine(updates of this client / K)

Claim: the accuracy of w over the last 8 of 40 rounds is higher on the server's clock, when a
quarter of the clients take part in a round, and also when what they send is late. On its own clock
a client is behind: when the run ends it has made a quarter of the updates, its learning rate is
still high, and w jumps to whoever took part last (each client has two to four of the ten digits).
To plan each client's cosine for the updates that it makes on average is no remedy: clients are
chosen at random, so some have ended while others are behind.

Control: all clients take part, and nothing is late. Then the clocks differ within a round only, in
which one stands still while the other goes on, and the effect must be absent: what counts is not
the steps of the schedule, but that all clients share its clock.

The clients live in two processes, which talk by torch.distributed.
"""

import json
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, distributed, multiprocessing
from torch.nn.functional import cross_entropy

import lrfused
from lrfused import schedules

from .common import plotting
from .common.data import digits
from .common.models import accuracy, mlp
from .common.statistics import Statement, Values, absent, larger
from .common.study import Result, collect, measured
from .common.training import batches, stream, train

PROBLEM, SEEDS = 3176503, 12
SWAPPED = ("own clock", "server's clock")
PROCESSES, CLIENTS, ROUNDS, LOCAL_STEPS, BATCH, PEAK = 2, 8, 40, 6, 16, 0.4
LAST = 8  # rounds at the end over which the accuracy is averaged
SCENARIOS = {"a quarter": (2, 0), "a quarter, late": (2, 2), "control": (CLIENTS, 0)}
ARMS = {
    "own clock": tuple(SCENARIOS),
    "server's clock": tuple(SCENARIOS),
    "own clock, planned": ("a quarter",),
}


def recipe(params, peak, rounds, local_steps):
    """A client that begins a round calls opt.set_step(round * local_steps)."""
    lr = schedules.per_round(schedules.cosine(peak, 0.0, rounds), local_steps)
    return lrfused.SGD(params, lr=lr)


def run(seeds: list[int], device: torch.device) -> Result:
    with TemporaryDirectory() as folder:
        multiprocessing.spawn(process, (folder, seeds, device), PROCESSES, daemon=True)
        return json.loads(Path(folder, "result").read_text(encoding="utf-8"))


def process(rank: int, folder: str, seeds: list[int], device: torch.device) -> None:
    """Some of the clients, for all seeds; all processes know the server's weights."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=120),
    )
    try:
        result = results(seeds, device)
    finally:
        distributed.destroy_process_group()
    if rank == 0:
        Path(folder, "result").write_text(json.dumps(result), encoding="utf-8")


def results(seeds: list[int], device: torch.device) -> Result:
    """The same in all processes."""
    rows, curves = [], {arm: [] for arm in ARMS}
    for seed in seeds:
        row = {}
        for arm, names in ARMS.items():
            row[arm] = {}
            for name in names:
                found = Federation(seed, arm, *SCENARIOS[name], device).run()
                row[arm][name] = sum(found[-LAST:]) / LAST
                if name == "a quarter":
                    curves[arm].append([round(value, 4) for value in found])
        rows.append(row)
    return {"arms": collect(rows), "curves": curves}


class Federation:
    """One run of the server and the clients of this process."""

    def __init__(self, seed: int, arm: str, taking_part: int, delay: int, device: torch.device):
        torch.manual_seed(seed)
        self.model = mlp([64, 32, 10]).to(device)
        self.params = list(self.model.parameters())
        self.own = arm != "server's clock"
        self.updates_of = [0] * CLIENTS
        if self.own:
            planned = taking_part / CLIENTS if "planned" in arm else 1.0
            lr = schedules.cosine(PEAK, 0.0, int(ROUNDS * LOCAL_STEPS * planned))
            self.opt = lrfused.SGD(self.params, lr=lr)
        else:
            self.opt = recipe(self.params, PEAK, ROUNDS, LOCAL_STEPS)
        self.seed, self.taking_part, self.delay, self.device = seed, taking_part, delay, device
        self.data = [(x.to(device), y.to(device)) for x, y in clients(seed)]
        self.test = digits().test_x.to(device), digits().test_y.to(device)

    def run(self) -> list[float]:
        """The server's accuracy after each round."""
        generator = stream(self.seed, "participation")
        server, found = self.weights(), []
        arriving = torch.zeros(ROUNDS + self.delay, len(server))  # sums of differences, by round
        for number in range(ROUNDS):
            chosen = torch.randperm(CLIENTS, generator=generator)[: self.taking_part].tolist()
            late = torch.randint(self.delay + 1, (CLIENTS,), generator=generator).tolist()
            for client in chosen:
                if client % PROCESSES == distributed.get_rank():
                    self.load(server)
                    self.update(client, number)
                    arriving[number + late[client]] += self.weights() - server
            distributed.all_reduce(arriving[number])
            server = server + arriving[number] / self.taking_part
            self.load(server)
            found.append(accuracy(self.model, *self.test))
        return found

    def update(self, client: int, number: int) -> None:
        """A client's part of a round."""
        x, y = self.data[client]
        chosen = batches(len(x), BATCH, ROUNDS * LOCAL_STEPS, self.seed * CLIENTS + client)
        chosen = chosen[number * LOCAL_STEPS :].to(self.device)
        self.opt.set_step(self.updates_of[client] if self.own else number * LOCAL_STEPS)

        def loss(step: int) -> Tensor:
            return cross_entropy(self.model(x[chosen[step]]), y[chosen[step]])

        train(self.opt, loss, LOCAL_STEPS)
        self.updates_of[client] += LOCAL_STEPS

    def weights(self) -> Tensor:
        return torch.cat([param.detach().reshape(-1).cpu() for param in self.params])

    @torch.no_grad()
    def load(self, weights: Tensor) -> None:
        parts = weights.split([param.numel() for param in self.params])
        for param, part in zip(self.params, parts, strict=True):
            param.copy_(part.view_as(param))


def clients(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Each has two of as many pieces of the digits, sorted by label, as twice the clients."""
    data, generator = digits(), stream(seed, "clients")
    pieces = data.y.argsort(stable=True).chunk(2 * CLIENTS)
    order = torch.randperm(2 * CLIENTS, generator=generator).tolist()
    pairs = [
        torch.cat([pieces[i], pieces[j]]) for i, j in zip(order[::2], order[1::2], strict=True)
    ]
    return [(data.x[pair], data.y[pair]) for pair in pairs]


def check(result: Result) -> list[Statement]:
    own, server, planned = measured(result, *ARMS)
    name, late = "a quarter", "a quarter, late"
    return [
        points("a quarter of the clients: better than on own clocks", server[name] - own[name]),
        points("better than on own clocks that are planned", server[name] - planned[name]),
        points("a quarter, and late: better than on own clocks", server[late] - own[late]),
        absent(
            "all clients: no better",
            100 * (server["control"] - own["control"]),
            within=0.5,
            unit="percentage points",
        ),
    ]


def points(text: str, difference: Values) -> Statement:
    return larger(text, 100 * difference, than=1.0, unit="percentage points")


def main_panel(axes: Axes, result: Result) -> None:
    for number, (arm, found) in enumerate(result["curves"].items()):
        plotting.curve(axes, range(1, ROUNDS + 1), found, arm, number)
    plotting.labelled(axes, "a quarter of the clients in each round", "round", "test accuracy")


def scenarios_panel(axes: Axes, result: Result) -> None:
    found = {arm: [result["arms"][arm][name] for name in SCENARIOS] for arm in SWAPPED}
    plotting.bars(axes, list(SCENARIOS), found)
    plotting.labelled(
        axes, f"mean of the last {LAST} rounds", "clients that take part", "test accuracy"
    )


def plot(result: Result) -> Figure:
    return plotting.figure(result, main_panel, scenarios_panel)
