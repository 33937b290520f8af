"""The depth of every parameter of a model: embedding, blocks in order, head."""

from collections.abc import Callable, Sequence

from torch.nn import Module, ModuleList, Parameter, Sequential

from lrfused.schedules.check import whole

Depths = dict[str, int]


def depths_by_function(names: list[str], depth: Callable[[str], int]) -> Depths:
    """The depths that the caller's function gives to the names."""
    if not callable(depth):
        raise TypeError(
            f"depth: must be a function from a name to a whole number, got {type(depth).__name__}"
        )
    return {name: whole(f"depth({name!r})", depth(name), minimum=0) for name in names}


def depths_by_blocks(model: Module, names: list[str], blocks: Sequence[str] | None) -> Depths:
    """Consecutive depths from 0: what comes before the blocks, each block, what comes after them.

    "Before" and "after" mean the order of ``named_parameters``; what lies between two containers
    of blocks belongs to the block before it.
    """
    prefixes = _prefixes(model, _longest(model) if blocks is None else _checked(model, blocks))
    found, passed = {}, 0
    # With every name of a shared parameter: else a block of nothing but such would not be passed.
    for name, _ in model.named_parameters(remove_duplicate=False):
        inside = next((i for i, p in enumerate(prefixes, start=1) if name.startswith(p)), 0)
        outside = passed if passed < len(prefixes) else len(prefixes) + 1
        found[name] = inside or outside
        passed = max(passed, inside)  # containers may be given in another order than the model's
    places = {depth: place for place, depth in enumerate(sorted({found[name] for name in names}))}
    return {name: places[found[name]] for name in names}


def _prefixes(model: Module, containers: list[str]) -> list[str]:
    """How the names of each block's parameters begin; blocks without parameters do not count."""
    return [
        f"{container}.{child}." if container else f"{child}."
        for container in containers
        for child, block in model.get_submodule(container).named_children()
        if _has_parameters(block)
    ]


def _has_parameters(module: Module) -> bool:
    return next(module.parameters(), None) is not None


def _checked(model: Module, blocks: Sequence[str]) -> list[str]:
    """The names of the containers that the caller gives."""
    if not isinstance(blocks, Sequence):
        raise TypeError(f"blocks: must be a name or a list of names, got {type(blocks).__name__}")
    containers = [blocks] if isinstance(blocks, str) else list(blocks)
    modules = dict(model.named_modules())
    for name in containers:
        if name not in modules:
            raise ValueError(f"blocks: the model has no module named {name!r}")
        if not any(map(_has_parameters, modules[name].children())):
            raise ValueError(f"blocks: {name!r} contains no module with parameters")
    if not containers:
        raise ValueError("blocks: must not be empty")
    for i, name in enumerate(containers):
        for other in containers[:i] + containers[i + 1 :]:
            if not other or name == other or name.startswith(f"{other}."):
                raise ValueError(f"blocks: must not overlap, but {other!r} contains {name!r}")
    return containers


def _longest(model: Module) -> list[str]:
    """The ModuleList or Sequential with the most blocks; of equals, the one around the others."""
    lengths = {
        name: sum(map(_has_parameters, module.children()))
        for name, module in model.named_modules()
        if isinstance(module, (ModuleList, Sequential))
    }
    longest = [name for name, n in lengths.items() if n == max(lengths.values()) and n > 0]
    if not longest:
        raise ValueError(
            "model: has no ModuleList or Sequential with parameters; give blocks= or depth="
        )
    first, *others = longest
    beside = [name for name in others if first and not name.startswith(f"{first}.")]
    if beside:
        raise ValueError(
            f"model: {first!r} and {beside[0]!r} have {lengths[first]} blocks each; give blocks= "
            "or depth="
        )
    return [first]


def named_once(model: Module) -> dict[str, Parameter]:
    """The parameters by name, a shared one under its first name.

    Raises:
        TypeError: not a module.
        ValueError: it has no parameters.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: must be a torch.nn.Module, got {type(model).__name__}")
    found = dict(model.named_parameters())
    if not found:
        raise ValueError("model: has no parameters")
    return found
