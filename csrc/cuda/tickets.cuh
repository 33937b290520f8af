// Who finishes last does what waits for all. A part is waited for by its unit, if adaptive clipping
// has to know all chunks of that, else by its span; a unit by the spans that its chunks lie in; the
// spans by plan.
//
// Blocks that draw a ticket read nothing after it that the last one may change: in every way
// through a kernel there is a barrier between what the threads read and their block's ticket.
#pragma once

#include "cuda/shared.cuh"

namespace lrfused {

// The other blocks that draw this ticket, `count` with this one, have finished, and what they
// stored can be read. The count returns to 0. By the whole block, which is told.
__device__ inline bool is_last(unsigned* ticket, unsigned count) {
    bool last = false;
    if (thread_index() == 0) {
        __threadfence();  // the results of this thread come before its ticket
        last = atomicInc(ticket, count - 1) == count - 1;
        __threadfence();  // and the last ticket before everybody's results
    }
    return __syncthreads_or(last);
}

// What a block finishes: a unit of several chunks (or -1) and spans.
struct Finished {
    int unit, first_span, end_span;
};

__device__ inline Finished finished_by(const Table& table, int unit, int span) {
    if (unit < 0) return {unit, span, span + 1};
    const LongUnit& row = table.long_units[unit];
    return {unit, static_cast<int>(row.first_chunk / SPAN),
            static_cast<int>((row.first_chunk + row.chunks - 1) / SPAN) + 1};
}

// Whether this block is the one that plans, after all that has to come before.
template <class Launched>
__device__ inline bool comes_to_plan(const Launched& a, Shared& shared) {
    const Table& table = a.table;
    Finished done;
    if (a.measures) {
        const Part& part = table.parts[blockIdx.x];
        done = finished_by(table, part.long_unit, static_cast<int>(part.chunk / SPAN));
        if (done.unit >= 0 &&
            !is_last(a.workspace.unit_tickets + done.unit, table.long_units[done.unit].parts))
            return false;
    } else if (a.combines) {  // measured before, on several devices: a block for each span and unit
        const int index = static_cast<int>(blockIdx.x);
        done = finished_by(table, index - static_cast<int>(table.spans_count), index);
    } else {
        return true;
    }
    if (done.unit >= 0)
        plan_unit(a, table.long_units[done.unit], shared.registers, shared.of_warps);
    bool last = false;
    for (int s = done.first_span; s < done.end_span; ++s) {
        const Span& span = table.spans[s];
        const unsigned own = a.measures ? span.parts : 1;
        const unsigned units = a.measures ? span.units_here : span.units;
        if (!is_last(a.workspace.span_tickets + s, own + units)) continue;
        plan_span(a, s, shared.registers, shared.of_warps);
        last = is_last(&a.workspace.decision->ticket,
                       static_cast<unsigned>(a.measures ? table.spans_here : table.spans_count));
    }
    return last;
}

}  // namespace lrfused
