// Where everything lies in the table and in the room.
#pragma once

#include <vector>

#include "cuda/table.h"

namespace lrfused {

// What a step is made from, as the caller describes it; everything is laid out from this.
struct Description {
    std::vector<TensorRow> tensors;
    std::vector<GroupRow> groups;
    Options options;
    std::vector<ProgramRow> programs;
};

// Programs of one shape become neighbours: threads that take the same way through the code.
void sort_by_code(std::vector<ProgramRow>& programs);

// The bytes of a table at this address, and where its parts are there.
std::vector<char> lay_out_table(const Description& from, uint64_t address, Table& table);

// The size of a room at this address, and where its parts are there.
int64_t lay_out_room(const Table& table, int slots, uint64_t address, Room& room);

}  // namespace lrfused
