# mypy: ignore-errors
"""The optimizers' updates, as in csrc/rules/: a function a rule, and its line in ``update``.

Each is of the gradient after the prologue, the parameter, the operands that the group uses and the
rule's scalars in its order, all in the compute type; it returns the new parameter and operands.
Nothing is contracted, so the order of operations is the definition.
"""

import triton
import triton.language as tl


@triton.jit
def square_root(x):
    """IEEE, as float64 has it anyway."""
    return tl.sqrt(x) if x.dtype == tl.float64 else tl.sqrt_rn(x)


@triton.jit
def divide(x, y):
    """IEEE, as float64 has it anyway."""
    return x / y if x.dtype == tl.float64 else tl.div_rn(x, y)


@triton.jit
def sign(x):
    """That of +-0 is 0, that of nan is nan."""
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, tl.where(x == 0.0, 0.0, x)))


@triton.jit
def term(x, factor):
    """x * factor; 0 selects nothing at all: what it would multiply may be infinite."""
    return tl.where(factor == 0.0, 0.0, x * factor)


@triton.jit
def adamw(g, p, state, scalars):
    """lrfused/rules/adamw.py."""
    decay, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, step_size, inverse_root = scalars
    p = p * decay
    m = state[0] * beta1 + g * one_minus_beta1
    v = state[1] * beta2 + (g * one_minus_beta2) * g
    if len(state) == 3:
        vmax = tl.where((v > state[2]) | (v != v), v, state[2])
        second = vmax
        after = (m, v, vmax)
    else:
        second = v
        after = (m, v)
    denominator = square_root(second) * inverse_root + eps
    return p - divide(m * step_size, denominator), after


@triton.jit
def lion(g, p, state, scalars):
    """lrfused/rules/lion.py."""
    decay, beta1, one_minus_beta1, beta2, one_minus_beta2, lr = scalars
    decayed = p * decay
    direction = sign(state[0] * beta1 + g * one_minus_beta1)
    m = state[0] * beta2 + g * one_minus_beta2
    return decayed - direction * lr, (m,)


# SGD's modes, as in lrfused/rules/sgd.py.
BUFFER, GRADIENT = tl.constexpr(0.0), tl.constexpr(2.0)


@triton.jit
def sgd(g, p, state, scalars):
    """lrfused/rules/sgd.py."""
    decay, l2, buffer_decay, buffer_gain, from_buffer, mode, lr = scalars
    decayed = p * decay
    direction = g + term(p, l2)
    after = ()
    if len(state) == 1:
        updated = term(state[0], buffer_decay) + direction * buffer_gain
        buffer = tl.where(mode == GRADIENT, state[0], updated)
        direction = term(buffer, from_buffer) + tl.where(mode == BUFFER, 0.0, direction)
        after = (buffer,)
    return decayed - direction * lr, after


@triton.jit
def update(RULE: tl.constexpr, g, p, state, scalars):
    """That of the rule of this name.

    (Kernels are told the name, not the function: up to 3.6 Triton cannot describe a function to
    the hooks for what is compiled, one of which torch's symmetric memory sets.)
    """
    if RULE == "adamw":
        after = adamw(g, p, state, scalars)
    elif RULE == "lion":
        after = lion(g, p, state, scalars)
    else:
        tl.static_assert(RULE == "sgd")
        after = sgd(g, p, state, scalars)
    return after
