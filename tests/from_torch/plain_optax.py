"""optax's schedules as plain formulas: each returns value(t)."""

from math import cos, floor, pi


def constant_schedule(value):
    return lambda t: value


def polynomial_schedule(first, last, power, steps, begin=0):
    def value(t):
        done = min(max(t - begin, 0), steps) / steps
        return last + (first - last) * (1 - done) ** power

    return value


def linear_schedule(first, last, steps, begin=0):
    return polynomial_schedule(first, last, 1, steps, begin)


def exponential_decay(first, steps, rate, begin=0, staircase=False, end_value=0.0):
    """For rates below 1, which end_value bounds from below."""

    def value(t):
        exponent = max(t - begin, 0) / steps
        return max(first * rate ** (floor(exponent) if staircase else exponent), end_value)

    return value


def cosine_decay_schedule(first, steps, alpha=0.0, exponent=1.0):
    def value(t):
        height = (1 + cos(pi * min(t, steps) / steps)) / 2
        return first * ((1 - alpha) * height**exponent + alpha)

    return value


def join_schedules(schedules, boundaries):
    def value(t):
        passed = [b for b in boundaries if b <= t]
        return schedules[len(passed)](t - (passed[-1] if passed else 0))

    return value


def piecewise_constant_schedule(first, scales):
    def value(t):
        result = first
        for boundary, scale in scales.items():
            result *= scale if t >= boundary else 1.0
        return result

    return value


def piecewise_interpolate_schedule(kind, first, scales):
    """From knot to knot; each scale multiplies the value of the knot before."""
    knots, values = [0], [first]
    for boundary, scale in scales.items():
        knots.append(boundary)
        values.append(values[-1] * scale)

    def value(t):
        for i in range(len(scales)):
            if t < knots[i + 1]:
                done = (t - knots[i]) / (knots[i + 1] - knots[i])
                done = done if kind == "linear" else (1 - cos(pi * done)) / 2
                return values[i] + (values[i + 1] - values[i]) * done
        return values[-1]

    return value


def linear_onecycle_schedule(steps, peak):
    scales = {int(0.3 * steps): 25.0, int(0.85 * steps): 1 / 25, steps: 1e-4}
    return piecewise_interpolate_schedule("linear", peak / 25, scales)


def cosine_onecycle_schedule(steps, peak):
    scales = {int(0.3 * steps): 25.0, steps: 1 / 25e4}
    return piecewise_interpolate_schedule("cosine", peak / 25, scales)


def warmup_constant_schedule(first, peak, warmup):
    return linear_schedule(first, peak, warmup)


def warmup_cosine_decay_schedule(init_value, peak_value, warmup_steps, decay_steps, end_value=0.0):
    """decay_steps is the length of both."""
    decay = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, end_value / peak_value)
    return join_schedules(
        [linear_schedule(init_value, peak_value, warmup_steps), decay], [warmup_steps]
    )


def warmup_exponential_decay_schedule(first, peak, warmup, steps, rate):
    decay = exponential_decay(peak, steps, rate)
    return join_schedules([linear_schedule(first, peak, warmup), decay], [warmup])


def sgdr_schedule(cycles):
    ends = [sum(c["decay_steps"] for c in cycles[: i + 1]) for i in range(len(cycles))]
    return join_schedules([warmup_cosine_decay_schedule(**c) for c in cycles], ends[:-1])
