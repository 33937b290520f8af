#include "cuda/step.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "cuda/launch.h"
#include "cuda/rows.h"

namespace lrfused {

// Places things one after the other in a block of memory that begins at an address.
class Layout {
  public:
    explicit Layout(uint64_t address_) : address(address_) {}

    template <class T>
    T* room_for(int64_t count) {
        size = (size + 15) / 16 * 16;
        T* place = reinterpret_cast<T*>(address + static_cast<uint64_t>(size));
        size += std::max<int64_t>(count, 1) * static_cast<int64_t>(sizeof(T));
        return place;
    }

    template <class T>
    const T* add(const std::vector<T>& items) {
        T* place = room_for<T>(static_cast<int64_t>(items.size()));
        bytes.resize(static_cast<size_t>(size));
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

static int64_t registers_of(const ProgramRow& program) {
    return static_cast<int64_t>(1 + program.constants.size() + program.inputs.size() / 2 +
                                program.code.size());
}

static std::vector<int32_t> code_of(const ProgramRow& program) {
    std::vector<int32_t> words;
    for (const Instruction& i : program.code) words.insert(words.end(), {i.op, i.a, i.b, i.c});
    return words;
}

Step::Step(std::vector<TensorRow> tensors_, std::vector<GroupOptions> groups_, Options options,
           std::vector<ProgramRow> programs_, State state)
    : tensors(std::move(tensors_)), groups(std::move(groups_)), programs(std::move(programs_)),
      arguments() {
    // Programs of one shape become neighbours: threads that take the same way through the code.
    std::stable_sort(programs.begin(), programs.end(), [](const auto& x, const auto& y) {
        return code_of(x) < code_of(y);
    });
    for (const ProgramRow& program : programs)
        if (registers_of(program) >= REGISTERS)
            throw std::invalid_argument("code: more registers than " + std::to_string(REGISTERS));
    arguments.options = options;
    arguments.state = state;
    table_bytes = static_cast<int64_t>(lay_out_table(0, arguments.table).size());
    room_bytes = lay_out_room(0, arguments.room);
    if (std::max(arguments.table.parts_count, arguments.table.tiles_count) > INT32_MAX)
        throw std::invalid_argument("params: more elements or units than one launch has blocks");
}

std::vector<char> Step::lay_out_table(uint64_t address, Table& table) const {
    Layout layout(address);
    table = Table();
    std::vector<Tensor> tensor_rows;
    const Rows rows = rows_of(tensors, groups);
    table.units_count = rows.units;
    table.spans_here = rows.spans_here;
    for (const TensorRow& t : tensors) tensor_rows.push_back({t.p, t.m, t.v, t.x, t.group});
    std::vector<Group> group_rows;
    for (const GroupOptions& options : groups) {
        group_rows.push_back({options, -1, -1});
        table.clips_before_norm |= options.value_clip || options.agc;
    }
    std::map<std::vector<int32_t>, const Instruction*> codes;
    std::vector<Program> program_rows;
    for (const ProgramRow& program : programs) {
        auto [code, is_new] = codes.try_emplace(code_of(program));
        if (is_new) code->second = layout.add(program.code);
        Group& group = group_rows[static_cast<size_t>(program.group)];
        const int64_t place = static_cast<int64_t>(program_rows.size());
        if (program.slot == CLIP_VALUE) group.clip_program = place;
        if (program.slot == AGC) group.agc_program = place;
        program_rows.push_back({code->second, layout.add(program.constants),
                                layout.add(program.inputs), layout.add(program.samples),
                                int64_t(program.group) * SLOTS + program.slot,
                                static_cast<int>(program.code.size()),
                                static_cast<int>(program.constants.size()),
                                static_cast<int>(program.inputs.size() / 2), program.result});
        table.registers = std::max(table.registers, registers_of(program));
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
    add(group_rows, table.groups, table.groups_count);
    add(program_rows, table.programs, table.programs_count);
    return std::move(layout.bytes);
}

int64_t Step::lay_out_room(uint64_t address, Room& room) const {
    const Table& table = arguments.table;
    const int64_t quarters = table.chunks_count * QUARTERS;
    Layout layout(address);
    room.raw = layout.room_for<double>(quarters);
    room.clipped = layout.room_for<double>(quarters);
    room.param = layout.room_for<double>(quarters);
    room.largest = layout.room_for<double>(quarters);
    room.factors = layout.room_for<double>(table.units_count);
    room.hyperparameters = layout.room_for<double>(table.groups_count * SLOTS);
    room.groups = layout.room_for<GroupPlan>(table.groups_count);
    room.tensors = layout.room_for<TensorPlan>(table.tensors_count);
    room.decision = layout.room_for<Decision>(1);
    room.spans = layout.room_for<SpanSums>(table.spans_count);
    room.span_tickets = layout.room_for<unsigned>(table.spans_count);
    room.unit_tickets = layout.room_for<unsigned>(table.long_units_count);
    return layout.size;
}

int64_t Step::decided_place() const {
    return reinterpret_cast<char*>(arguments.room.factors) -
           reinterpret_cast<char*>(arguments.room.raw);
}

int64_t Step::decided_end() const {
    return reinterpret_cast<char*>(arguments.room.spans) -
           reinterpret_cast<char*>(arguments.room.raw);
}

int64_t Step::overflows_place() const {
    return reinterpret_cast<char*>(&arguments.room.decision->overflows) -
           reinterpret_cast<char*>(arguments.room.raw);
}

std::vector<char> Step::place(uint64_t table, uint64_t room) {
    std::vector<char> bytes = lay_out_table(table, arguments.table);
    lay_out_room(room, arguments.room);
    return bytes;
}

static int driver_version() {
    int version = 0;
    check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
    return version;
}

int64_t parameter_capacity() { return driver_version() >= 12010 ? MANY : FEW; }

Switches switches;

// Once for a device, and again when the switch was turned.
static void prefer_carveouts(int device) {
    static std::map<int, bool> done;
    const auto before = done.find(device);
    if (before != done.end() && before->second == switches.equal_carveout) return;
    const int percent = switches.equal_carveout ? measure_carveout(device)
                                                : static_cast<int>(cudaSharedmemCarveoutDefault);
    prefer_measure_carveout(percent);
    prefer_apply_carveout(percent);
    done[device] = switches.equal_carveout;
}

// Makes a device the current one, and at the end the one that it was before.
class Device {
  public:
    explicit Device(int device) {
        check(cudaGetDevice(&before), "cudaGetDevice");
        if (device != before) check(cudaSetDevice(device), "cudaSetDevice");
        changed = device != before;
    }
    ~Device() {
        if (changed) cudaSetDevice(before);
    }

  private:
    int before = 0;
    bool changed;
};

void Step::run(const Call& call, const std::vector<uint64_t>& gradients, int phases, int device,
               cudaStream_t stream) {
    Device guard(device);
    prefer_carveouts(device);
    if (can_depend < 0)  // captured since CUDA 12.3
        can_depend = driver_version() >= 12030 && is_compiled_for_dependent_launch();
    Arguments a = arguments;
    a.call = call;
    a.measures = phases & MEASURE && a.options.measures && a.table.parts_count;
    a.plans = phases & PLAN;
    a.combines = a.plans && !(phases & MEASURE) && a.options.measures && a.table.spans_count;
    const int64_t count = call.gradients ? 0 : static_cast<int64_t>(gradients.size());
    const Gradients words = {gradients.data(), count};
    if (a.measures || a.plans) launch_measure(a, words, stream);
    // Between the phases of several devices there are copies, which nothing may overtake.
    if (phases & APPLY && a.table.tiles_count)
        launch_apply(a, words, stream,
                     can_depend && switches.dependent_launch && phases == WHOLE_STEP);
}

}  // namespace lrfused
