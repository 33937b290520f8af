#include "cuda/layout.h"

#include <algorithm>
#include <map>
#include <utility>

#include "cuda/rows.h"

namespace lrfused {

// Room for so many is given in steps of an eighth, so that where a few rows are added the others
// stay where they are.
static int64_t rounded_up(int64_t count) {
    int64_t step = 1;
    while (step * 16 <= count) step *= 2;
    return std::max<int64_t>((count + step - 1) / step * step, 1);
}

// Places things one after the other in a block of memory that begins at an address.
class Layout {
  public:
    explicit Layout(uint64_t address_) : address(address_) {}

    template <class T>
    T* room_for(int64_t count) {
        T* place = reinterpret_cast<T*>(address + static_cast<uint64_t>(size));
        size += rounded_up(count) * static_cast<int64_t>(sizeof(T));
        size = (size + 15) / 16 * 16;
        return place;
    }

    template <class T>
    const T* add(const std::vector<T>& items) {
        T* place = room_for<T>(static_cast<int64_t>(items.size()));
        bytes.resize(static_cast<size_t>(size));  // of zeros
        const char* first = reinterpret_cast<const char*>(items.data());
        const size_t start = static_cast<size_t>(reinterpret_cast<uint64_t>(place) - address);
        std::copy(first, first + items.size() * sizeof(T), bytes.data() + start);
        return place;
    }

    int64_t size = 0;
    std::vector<char> bytes;

  private:
    uint64_t address;
};

static std::vector<int32_t> code_of(const ProgramRow& program) {
    std::vector<int32_t> words;
    for (const Instruction& i : program.code) words.insert(words.end(), {i.op, i.a, i.b, i.c});
    return words;
}

void sort_by_code(std::vector<ProgramRow>& programs) {
    std::stable_sort(programs.begin(), programs.end(), [](const auto& x, const auto& y) {
        return code_of(x) < code_of(y);
    });
}

// Programs whose code is equal have it once, and those that share a table.
class Codes {
  public:
    explicit Codes(Layout& layout_) : layout(layout_) {}

    const double* place_samples(const Samples& samples) {
        auto [table, is_new] = tables.try_emplace(samples.get());
        if (is_new) table->second = layout.add(*samples);
        return table->second;
    }

    const Instruction* place(const ProgramRow& program) {
        auto [code, is_new] = places.try_emplace(code_of(program));
        if (is_new) code->second = layout.add(program.code);
        return code->second;
    }

  private:
    Layout& layout;
    std::map<std::vector<int32_t>, const Instruction*> places;
    std::map<const std::vector<double>*, const double*> tables;
};

static ScalarProgram scalar_program(Layout& layout, Codes& codes, const ProgramRow& row,
                                    int carried) {
    const int results = static_cast<int>(row.results.size());
    return {codes.place(row),
            layout.add(row.constants),
            layout.add(row.results),
            static_cast<int>(row.code.size()),
            static_cast<int>(row.constants.size()),
            results - carried};
}

static Program schedule_program(Layout& layout, Codes& codes, const ProgramRow& row, int slots) {
    return {codes.place(row),
            layout.add(row.constants),
            layout.add(row.inputs),
            codes.place_samples(row.samples),
            int64_t(row.group) * slots + row.slot,
            static_cast<int>(row.code.size()),
            static_cast<int>(row.constants.size()),
            static_cast<int>(row.inputs.size()),
            row.results[0]};
}

// The most that a program needs.
static void include(int& registers, const ProgramRow& program) {
    registers = std::max(registers, static_cast<int>(program.registers()));
}

std::vector<char> lay_out_table(const Description& from, uint64_t address, Table& table) {
    Layout layout(address);
    table = Table();
    Codes codes(layout);
    const Rows rows = rows_of(from.tensors, from.groups);
    table.units_count = rows.units;
    table.spans_here = rows.spans_here;
    std::vector<Tensor> tensor_rows;
    for (const TensorRow& t : from.tensors) {
        tensor_rows.push_back({t.p, {}, t.average, t.mask, t.group});
        table.rides |= t.average.data || t.mask || from.options.zero_grads;
        std::copy(t.operands, t.operands + MAX_OPERANDS, tensor_rows.back().operands);
    }
    auto add = [&](const auto& rows, auto& place, int64_t& count) {
        place = layout.add(rows);
        count = static_cast<int64_t>(rows.size());
    };
    add(tensor_rows, table.tensors, table.tensors_count);
    add(rows.chunks, table.chunks, table.chunks_count);
    add(rows.parts, table.parts, table.parts_count);
    add(rows.tiles, table.tiles, table.tiles_count);
    add(rows.long_units, table.long_units, table.long_units_count);
    add(rows.spans, table.spans, table.spans_count);
    std::vector<Group> group_rows;
    for (const GroupRow& group : from.groups) {
        group_rows.push_back({group.options, -1, -1, {}});
        group_rows.back().scalars =
            scalar_program(layout, codes, group.scalars, from.options.carried);
        table.clips_before_norm |= group.options.value_clip || group.options.agc;
        include(table.scalar_registers, group.scalars);
    }
    std::vector<Program> program_rows;
    for (const ProgramRow& program : from.programs) {
        Group& group = group_rows[static_cast<size_t>(program.group)];
        const int64_t place = static_cast<int64_t>(program_rows.size());
        if (program.slot == CLIP_VALUE) group.clip_program = place;
        if (program.slot == AGC) group.agc_program = place;
        program_rows.push_back(schedule_program(layout, codes, program, from.options.slots));
        include(table.registers, program);
    }
    add(group_rows, table.groups, table.groups_count);
    add(program_rows, table.programs, table.programs_count);
    return std::move(layout.bytes);
}

int64_t lay_out_workspace(const Table& table, int slots, uint64_t address, Workspace& workspace) {
    const int64_t quarters = table.chunks_count * QUARTERS;
    Layout layout(address);
    workspace.raw = layout.room_for<double>(quarters);
    workspace.clipped = layout.room_for<double>(quarters);
    workspace.param = layout.room_for<double>(quarters);
    workspace.largest = layout.room_for<double>(quarters);
    workspace.elements = layout.room_for<double>(quarters);
    workspace.tiny = layout.room_for<double>(quarters);
    workspace.factors = layout.room_for<double>(table.units_count);
    workspace.thresholds = layout.room_for<double>(2 * table.groups_count);
    workspace.hyperparameters = layout.room_for<double>(table.groups_count * slots);
    workspace.groups = layout.room_for<GroupPlan>(table.groups_count);
    workspace.rows = layout.room_for<ScalarRow>(SHARED_ROWS + table.tensors_count);
    workspace.row_of = layout.room_for<int>(table.tensors_count);
    workspace.decision = layout.room_for<Decision>(1);
    workspace.spans = layout.room_for<Sums>(table.spans_count);
    workspace.span_tickets = layout.room_for<unsigned>(table.spans_count);
    workspace.unit_tickets = layout.room_for<unsigned>(table.long_units_count);
    return layout.size;
}

}  // namespace lrfused
