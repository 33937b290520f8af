#include "cuda/step.h"

#include <algorithm>
#include <map>
#include <utility>

#include "cuda/launch.h"
#include "rules/rules.h"

namespace lrfused {

// A block has so many for all that it evaluates side by side.
static void check_registers(const ProgramRow& program, int most) {
    if (program.registers() >= static_cast<size_t>(most))
        throw std::invalid_argument("code: more registers than " + std::to_string(most));
}

Step::Step(std::vector<TensorRow> tensors, std::vector<GroupRow> groups, Options options,
           std::vector<ProgramRow> programs, State state)
    : from{std::move(tensors), std::move(groups), options, std::move(programs)}, arguments() {
    for (const GroupRow& group : from.groups) check_registers(group.scalars, WARP_REGISTERS);
    arguments.options = options;
    arguments.state = state;
    measure_sizes();
}

void Step::update(const std::vector<size_t>& indices, std::vector<TensorRow> rows,
                  std::vector<ProgramRow> programs) {
    replace_rows(from.tensors, indices, std::move(rows), from.programs, std::move(programs));
    measure_sizes();
}

void Step::measure_sizes() {
    for (const ProgramRow& program : from.programs) check_registers(program, REGISTERS);
    sort_by_code(from.programs);
    table_bytes = static_cast<int64_t>(lay_out_table(from, 0, arguments.table).size());
    workspace_bytes =
        lay_out_workspace(arguments.table, arguments.options.slots, 0, arguments.workspace);
    if (std::max(arguments.table.parts_count, arguments.table.tiles_count) > INT32_MAX)
        throw std::invalid_argument("params: more elements or units than one launch has blocks");
}

int64_t Step::decided_place() const {
    return reinterpret_cast<char*>(arguments.workspace.factors) -
           reinterpret_cast<char*>(arguments.workspace.raw);
}

int64_t Step::decided_end() const {
    return reinterpret_cast<char*>(arguments.workspace.spans) -
           reinterpret_cast<char*>(arguments.workspace.raw);
}

int64_t Step::overflows_place() const {
    return reinterpret_cast<char*>(&arguments.workspace.decision->overflows) -
           reinterpret_cast<char*>(arguments.workspace.raw);
}

std::vector<char> Step::place(uint64_t table, uint64_t workspace) {
    std::vector<char> bytes = lay_out_table(from, table, arguments.table);
    lay_out_workspace(arguments.table, arguments.options.slots, workspace, arguments.workspace);
    return bytes;
}

static int driver_version() {
    int version = 0;
    check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
    return version;
}

int64_t parameter_capacity() { return driver_version() >= 12010 ? MANY : FEW; }

Switches switches;

// Once for a device and a rule, and again when the switch was turned.
static void prefer_carveouts(int device, int rule) {
    static std::map<std::pair<int, int>, bool> done;
    const auto before = done.find({device, rule});
    if (before != done.end() && before->second == switches.equal_carveout) return;
    const int percent = switches.equal_carveout ? measure_carveout(device)
                                                : static_cast<int>(cudaSharedmemCarveoutDefault);
    prefer_measure_carveout(percent);
    Rules::with(rule, [&](auto r) { Apply<decltype(r)>::prefer_carveout(percent); });
    done[{device, rule}] = switches.equal_carveout;
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

static bool is_compiled_for_dependent_launch(int rule) {
    bool compiled = false;
    Rules::with(rule, [&](auto r) {
        compiled = Apply<decltype(r)>::is_compiled_for_dependent_launch();
    });
    return compiled;
}

void Step::run(const Call& call, const std::vector<uint64_t>& gradients, int phases, int device,
               cudaStream_t stream) {
    Device guard(device);
    const int rule = arguments.options.rule;
    prefer_carveouts(device, rule);
    if (can_depend < 0)  // captured since CUDA 12.3
        can_depend = driver_version() >= 12030 && is_compiled_for_dependent_launch(rule);
    Arguments a = arguments;
    a.call = call;
    a.measures = phases & MEASURE && a.options.measures && a.table.parts_count;
    a.plans = phases & PLAN;
    a.combines = a.plans && !(phases & MEASURE) && a.options.measures && a.table.spans_count;
    const Gradients words = {gradients.data(), static_cast<int64_t>(gradients.size())};
    if (a.measures || a.plans) launch_measure(a, words, stream);
    // Between the phases of several devices there are copies, which nothing may overtake.
    const bool dependent = can_depend && switches.dependent_launch && phases == WHOLE_STEP;
    if (phases & APPLY && a.table.tiles_count)
        Rules::with(rule, [&](auto r) { Apply<decltype(r)>::launch(a, words, stream, dependent); });
}

}  // namespace lrfused
