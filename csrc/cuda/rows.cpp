#include "cuda/rows.h"

#include <algorithm>

#include "core/norm.h"

namespace lrfused {

// Of a short chunk only the quarters that have elements.
static int quarters_of(const Piece& chunk) {
    constexpr int quarter = LANE_BLOCKS / QUARTERS * BLOCK;
    return std::min(QUARTERS, (chunk.count + quarter - 1) / quarter);
}

static const TensorRow& tensor_of(const std::vector<TensorRow>& tensors, const Piece& piece) {
    return tensors[static_cast<size_t>(piece.tensor)];
}

static void include_group(Span& span, int group) {
    const int first = span.groups ? std::min(span.first_group, group) : group;
    const int end = std::max(span.first_group + span.groups, group + 1);
    span.first_group = first;
    span.groups = end - first;
}

// Parts, units of several chunks, and what the spans of these wait for.
static void add_tickets(Rows& rows, const std::vector<TensorRow>& tensors,
                        const std::vector<GroupRow>& groups) {
    rows.spans.resize((rows.chunks.size() + SPAN - 1) / SPAN);
    int64_t last_unit = -1;
    for (size_t c = 0; c < rows.chunks.size(); ++c) {
        const Piece& chunk = rows.chunks[c];
        const TensorRow& tensor = tensor_of(tensors, chunk);
        const int quarters = tensor.is_here() ? quarters_of(chunk) : 0;
        Span& span = rows.spans[c / SPAN];
        include_group(span, tensor.group);
        const bool waits = !chunk.is_whole_unit && groups[static_cast<size_t>(tensor.group)].options.agc;
        if (waits) {
            const bool begins = chunk.unit != last_unit;
            if (begins) rows.long_units.push_back({static_cast<int64_t>(c), 0, 0});
            if (begins || c % SPAN == 0) {
                span.units += 1;
                span.units_here += tensor.is_here();
            }
            last_unit = chunk.unit;
            rows.long_units.back().chunks += 1;
            rows.long_units.back().parts += static_cast<unsigned>(quarters);
        } else {
            span.parts += static_cast<unsigned>(quarters);
        }
        const int unit = waits ? static_cast<int>(rows.long_units.size()) - 1 : -1;
        for (int q = 0; q < quarters; ++q) rows.parts.push_back({static_cast<int64_t>(c), q, unit});
    }
    rows.spans_here = std::count_if(rows.spans.begin(), rows.spans.end(), [](const Span& span) {
        return span.parts + span.units_here > 0;
    });
}

Rows rows_of(const std::vector<TensorRow>& tensors, const std::vector<GroupRow>& groups) {
    Rows rows = {};
    rows.chunks = pieces(tensors, CHUNK);
    for (const Piece& tile : pieces(tensors, TILE))
        if (tensor_of(tensors, tile).is_here()) rows.tiles.push_back(tile);
    for (const TensorRow& tensor : tensors) rows.units += tensor.units();
    add_tickets(rows, tensors, groups);
    return rows;
}

}  // namespace lrfused
