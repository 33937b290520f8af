"""transformers' schedule functions as plain formulas: each returns lr(t)."""

from math import cos, pi, sqrt


def _warmed(opt, warmup, after, rise=lambda x: x, start=0.0):
    """From start to lr over the warmup, then ``after`` on the steps that follow it."""

    def lr(t):
        if t < warmup:
            return start + (opt.lr - start) * rise(t / warmup)
        return after(t - warmup)

    return lr


def get_constant_schedule(opt):
    return lambda t: opt.lr


def get_constant_schedule_with_warmup(opt, warmup):
    return _warmed(opt, warmup, lambda s: opt.lr)


def get_linear_schedule_with_warmup(opt, warmup, total):
    return _warmed(opt, warmup, lambda s: opt.lr * max(0.0, 1 - s / (total - warmup)))


def get_cosine_schedule_with_warmup(opt, warmup, total):
    return get_cosine_with_min_lr_schedule_with_warmup(opt, warmup, total, min_lr=0.0)


def get_cosine_with_hard_restarts_schedule_with_warmup(opt, warmup, total, cycles):
    length = total - warmup

    def after(s):
        return opt.lr * (1 + cos(pi * (cycles * s % length) / length)) / 2 if s < length else 0.0

    return _warmed(opt, warmup, after)


def get_polynomial_decay_schedule_with_warmup(opt, warmup, total, end, power):
    def after(s):
        return end + (opt.lr - end) * max(0.0, 1 - s / (total - warmup)) ** power

    return _warmed(opt, warmup, after)


def get_inverse_sqrt_schedule(opt, warmup, timescale=None):
    scale = timescale or warmup
    return _warmed(opt, warmup, lambda s: opt.lr / sqrt(1 + s / scale))


def get_cosine_with_min_lr_schedule_with_warmup(opt, warmup, total, *, min_lr):
    def after(s):
        return min_lr + (opt.lr - min_lr) * (1 + cos(pi * s / (total - warmup))) / 2

    return _warmed(opt, warmup, after)


def get_cosine_with_min_lr_schedule_with_warmup_lr_rate(
    opt, warmup, total, *, min_lr, warmup_lr_rate=None
):
    """Its first updates are (t + 1) / warmup, or reach lr at the last one of the warmup."""
    decay = get_cosine_with_min_lr_schedule_with_warmup(opt, 0, total - warmup, min_lr=min_lr)

    def lr(t):
        if t >= warmup:
            return decay(t - warmup + 1)
        if warmup_lr_rate is None:
            return opt.lr * (t + 1) / warmup
        return opt.lr * (warmup_lr_rate + (1 - warmup_lr_rate) * t / (warmup - 1))

    return lr


SHAPES = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - cos(pi * x)) / 2,
    "1-sqrt": lambda x: 1 - sqrt(1 - x),
}
DECAYS = {**SHAPES, "1-sqrt": sqrt}


def get_wsd_schedule(
    opt, warmup, decay, total, warmup_type="linear", decay_type="cosine", min_lr_ratio=0.0
):
    end = opt.lr * min_lr_ratio

    def after(s):
        done = min(max((s - (total - warmup - decay)) / decay, 0.0), 1.0)
        return opt.lr + (end - opt.lr) * DECAYS[decay_type](done)

    return _warmed(opt, warmup, after, SHAPES[warmup_type], end)
