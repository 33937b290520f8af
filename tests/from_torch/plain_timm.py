"""timm's schedulers as plain formulas: each returns lr(t)."""

from bisect import bisect_right
from math import cos, pi, sqrt, tanh


def _cycles(opt, length, end, height, cycle_mul=1.0, cycle_decay=1.0, cycle_limit=1):
    """Cycles that shrink and stretch; ``height`` of the fraction done is 1 at 0, 0 at 1."""

    def lr(t):
        index, begin, now = 0, 0, length
        while t >= begin + now:
            index, begin, now = index + 1, begin + now, now * cycle_mul
        if index >= cycle_limit:
            return end
        top = opt.lr * cycle_decay**index
        return end + (top - end) * height((t - begin) / now)

    return lr


def _warmed(schedule, opt, warmup_t, warmup_lr_init, warmup_prefix):
    def lr(t):
        if t < warmup_t:
            return warmup_lr_init + (opt.lr - warmup_lr_init) * t / warmup_t
        return schedule(t - warmup_t if warmup_prefix else t)

    return lr


def CosineLRScheduler(
    opt,
    length,
    end,
    warmup_t=0,
    warmup_lr_init=0.0,
    warmup_prefix=False,
    k_decay=1.0,
    **cycles,
):
    wave = _cycles(opt, length, end, lambda x: (1 + cos(pi * x**k_decay)) / 2, **cycles)
    return _warmed(wave, opt, warmup_t, warmup_lr_init, warmup_prefix)


def TanhLRScheduler(opt, length, lr_min):
    """Its first value is not quite lr, but the first update does not see it."""
    wave = _cycles(opt, length, lr_min, lambda x: (1 - tanh(-7 * (1 - x) + 3 * x)) / 2)
    return lambda t: wave(t) if t else opt.lr


def PolyLRScheduler(opt, length, power, end):
    return _cycles(opt, length, end, lambda x: (1 - x) ** power)


def StepLRScheduler(opt, every, rate, warmup_t=0, warmup_lr_init=0.0):
    drops = lambda t: opt.lr * rate ** (t // every)  # noqa: E731
    return _warmed(drops, opt, warmup_t, warmup_lr_init, True)


def MultiStepLRScheduler(opt, milestones, rate):
    """A milestone m acts at t = m - 1 already."""
    return lambda t: opt.lr * rate ** bisect_right(milestones, t + 1)


DECAYS = {
    "1-sqrt": lambda x: 1 - sqrt(x),
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + cos(pi * x)) / 2,
}


def WSDLRScheduler(
    opt, length, decay, end=0.0, stable_fn="constant", decay_fn="1-sqrt", warmup_t=0, **warmup
):
    def stable(s):
        return opt.lr / sqrt(1 + s / warmup_t) if stable_fn == "rsqrt" else opt.lr

    def after(s):
        done = min(max((s - (length - decay)) / decay, 0.0), 1.0)
        return end + (stable(s) - end) * DECAYS[decay_fn](done)

    return _warmed(after, opt, warmup_t, warmup.get("warmup_lr_init", 0.0), True)
