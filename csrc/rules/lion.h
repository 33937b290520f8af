// Lion's update of one element, as in lrfused/rules/lion.py and lrfused/backends/triton/rules.py.
#pragma once

#include "core/scalars.h"
#include "rules/operands.h"

namespace lrfused {

struct Lion {
    static constexpr const char* NAME = "lion";
    enum Scalar { DECAY, BETA1, ONE_MINUS_BETA1, BETA2, ONE_MINUS_BETA2, LR };
    static constexpr const char* SCALARS[] = {"decay", "beta1", "one_minus_beta1",
                                              "beta2", "one_minus_beta2", "lr"};
    using Operands = OperandCounts<1>;  // exp_avg
    static constexpr bool HAS_SLOW_PATH = false;

    // The sign of +-0 is 0, that of nan is nan.
    template <class C>
    LRF_HD static C sign(C x) {
        return x > C(0) ? C(1) : (x < C(0) ? C(-1) : (x == C(0) ? C(0) : x));
    }

    template <int operands, class C>
    LRF_HD static void update(C g, C& p, C* state, const Scalars<C>& r) {
        C decayed = p * r[DECAY];
        C direction = sign(state[0] * r[BETA1] + g * r[ONE_MINUS_BETA1]);
        state[0] = state[0] * r[BETA2] + g * r[ONE_MINUS_BETA2];
        p = decayed - direction * r[LR];
    }
};

}  // namespace lrfused
