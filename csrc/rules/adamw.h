// AdamW's update of one element, as in lrfused/rules/adamw.py and lrfused/backends/triton/rules.py.
#pragma once

#include "core/scalars.h"
#include "rules/operands.h"

namespace lrfused {

struct AdamW {
    static constexpr const char* NAME = "adamw";
    enum Scalar {
        DECAY, BETA1, ONE_MINUS_BETA1, BETA2, ONE_MINUS_BETA2, EPS, STEP_SIZE,
        INV_SQRT_BIAS_CORRECTION2
    };
    static constexpr const char* SCALARS[] = {
        "decay", "beta1", "one_minus_beta1", "beta2", "one_minus_beta2", "eps", "step_size",
        "inv_sqrt_bias_correction2"};
    using Operands = OperandCounts<2, 3>;  // exp_avg, exp_avg_sq; with amsgrad max_exp_avg_sq
    static constexpr bool HAS_SLOW_PATH = true;  // of a division and a root

    template <int operands, class C>
    LRF_HD static void update(C g, C& p, C* state, const Scalars<C>& r) {
        C decayed = p * r[DECAY];
        C m = state[0] * r[BETA1] + g * r[ONE_MINUS_BETA1];
        C v = state[1] * r[BETA2] + (g * r[ONE_MINUS_BETA2]) * g;
        state[0] = m;
        state[1] = v;
        if constexpr (operands == 3) {
            v = v > state[2] || v != v ? v : state[2];
            state[2] = v;
        }
        C denominator = root_of(v) * r[INV_SQRT_BIAS_CORRECTION2] + r[EPS];
        p = decayed - (m * r[STEP_SIZE]) / denominator;
    }
};

}  // namespace lrfused
