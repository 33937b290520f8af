// SGD's update of one element, as in lrfused/rules/sgd.py and lrfused/backends/triton/rules.py.
#pragma once

#include "core/scalars.h"
#include "rules/operands.h"

namespace lrfused {

struct Sgd {
    static constexpr const char* NAME = "sgd";
    enum Scalar { DECAY, L2, BUFFER_DECAY, BUFFER_GAIN, FROM_BUFFER, MODE, LR };
    static constexpr const char* SCALARS[] = {
        "decay", "l2", "buffer_decay", "buffer_gain", "from_buffer", "mode", "lr"};
    // What the direction is made of; one scalar, as registers are scarce. Without momentum the
    // buffer is unchanged.
    static constexpr int BUFFER = 0, BUFFER_AND_GRADIENT = 1, GRADIENT = 2;
    using Operands = OperandCounts<0, 1>;  // with momentum: momentum_buffer
    static constexpr bool HAS_SLOW_PATH = false;

    // x * factor, and 0 for a factor of 0 even if x is inf or nan.
    template <class C>
    LRF_HD static C term(C x, C factor) {
        return factor == C(0) ? C(0) : x * factor;
    }

    template <int operands, class C>
    LRF_HD static void update(C g, C& p, C* state, const Scalars<C>& r) {
        C decayed = p * r[DECAY];
        C direction = g + term(p, r[L2]);
        if constexpr (operands == 1) {
            C updated = term(state[0], r[BUFFER_DECAY]) + direction * r[BUFFER_GAIN];
            C buffer = r[MODE] == C(GRADIENT) ? state[0] : updated;
            state[0] = buffer;
            direction = term(buffer, r[FROM_BUFFER]) + (r[MODE] == C(BUFFER) ? C(0) : direction);
        }
        p = decayed - direction * r[LR];
    }
};

}  // namespace lrfused
