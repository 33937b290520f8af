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

// Whether this block is the one that plans, after all that has to come before. What it finishes: a
// unit of several chunks (or -1), and the spans of that, or one.
template <class Launched>
__device__ inline bool comes_to_plan(const Launched& a, Shared& shared) {
    const Table& table = a.table;
    int unit, span = static_cast<int>(same_block()), end = span + 1;
    if (a.measures) {
        const Part& part = table.parts[same_block()];
        unit = part.long_unit;
        span = static_cast<int>(part.chunk / SPAN);
        end = span + 1;
        if (unit >= 0 && !is_last(a.workspace.unit_tickets + unit, table.long_units[unit].parts))
            return false;
    } else if (a.combines) {  // measured before, on several devices: a block for each span and unit
        unit = span - static_cast<int>(table.spans_count);
    } else {
        return true;
    }
    if (unit >= 0) {
        const LongUnit& row = table.long_units[unit];
        plan_unit(a, row, shared.registers, shared.turns);
        span = static_cast<int>(row.first_chunk / SPAN);
        end = static_cast<int>((row.first_chunk + row.chunks - 1) / SPAN) + 1;
    }
    bool last = false;
    for (; span < end; ++span) {
        const Span& row = table.spans[span];
        const unsigned own = a.measures ? row.parts : 1;
        const unsigned units = a.measures ? row.units_here : row.units;
        if (!is_last(a.workspace.span_tickets + span, own + units)) continue;
        plan_span(a, span, shared.registers, shared.of_warps);
        last = is_last(&a.workspace.decision->ticket,
                       static_cast<unsigned>(a.measures ? table.spans_here : table.spans_count));
    }
    return last;
}

}  // namespace lrfused
