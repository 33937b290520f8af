// Random steps of the C++ backend, without Python, for the sanitizers: every operand is an
// allocation of its exact size, and every thread count and instruction set has to leave the
// same bits. tests/faults/test_sanitizers.py builds and runs it:
//
//   driver SEED TRIALS   random steps; "ok" at the end
//   driver overflow      plants a gradient that is longer than its memory
//   driver misaligned    plants a gradient at an odd address
//   driver race          plants a sum that all threads add to
//
// The last three show that the sanitizers see what the backend does.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "cpu/instruction_set.h"
#include "cpu/step.h"
#include "cpu/threads.h"
#include "memory.h"

enum Plant { NOTHING, OVERFLOW, MISALIGNED };
enum Operand { P, M, V, X, G, OPERANDS };

constexpr int STEPS_OF_A_CASE = 3;

// One random table with its values, options and gradients; every run of it starts from a copy.
struct Case {
    struct Row {
        int64_t count, unit;
        int group, dtypes[OPERANDS], skipped[OPERANDS];
        bool frozen;  // never a gradient, and so no state
        std::vector<double> values[OPERANDS], gradients[STEPS_OF_A_CASE];  // empty: no gradient
    };

    std::vector<Row> rows;
    std::vector<GroupOptions> groups;
    Options options{};
    std::vector<Program> programs;
    std::vector<Memory> inputs;
    std::vector<double> values;
    std::unique_ptr<bool[]> given;
    double grad_scale;
    bool found_inf;
    Plant plant = NOTHING;

    explicit Case(Random& random);
    void add_row(Random& random);
    void add_program(Random& random, int group, int slot);
    std::vector<uint64_t> outcome(int threads, const std::string& instruction_set) const;
};

static std::vector<double> numbers(Random& random, int64_t count, double low, double high) {
    std::vector<double> list(static_cast<size_t>(count));
    for (double& x : list) x = random.within(low, high);
    return list;
}

void Case::add_row(Random& random) {
    Row row{};
    int64_t length = random.one_of<int64_t>({0, 1, 2, 3, 17, 63, 64, 65, 511, 512, 513, 1500});
    if (random.one_in(6)) length = random.one_of<int64_t>({32768, 65535, 65536, 65537, 70001});
    bool by_unit = length && random.one_in(2);
    row.unit = by_unit ? length : 0;
    row.count = by_unit ? length * random.one_of<int64_t>({1, 2, 5}) : length;
    row.group = static_cast<int>(random.below(static_cast<int64_t>(groups.size())));
    row.frozen = random.one_in(8);
    for (int i = 0; i < OPERANDS; ++i) {
        row.dtypes[i] = random.one_of({FLOAT64, FLOAT32, BFLOAT16, FLOAT16});
        row.skipped[i] = random.one_of({0, 0, 1, 3, 5});
        row.values[i] = numbers(random, row.count, i == V || i == X ? 0.0 : -1.0, 1.0);
    }
    for (std::vector<double>& gradient : row.gradients) {
        if (row.frozen || random.one_in(6)) continue;
        double size = random.one_of({1e-8, 1e-3, 1.0, 100.0});
        gradient = numbers(random, row.count, -size, size);
        if (row.count && random.one_in(12))
            gradient[static_cast<size_t>(random.below(row.count))] =
                random.one_of({infinity(), -infinity(), quiet_nan()});
    }
    rows.push_back(std::move(row));
}

// A few random operations; the value that comes out is brought into [0, 0.9].
void Case::add_program(Random& random, int group, int slot) {
    Program program{group, slot, {}, {0.0, 4.0, 0.5, 0.9, random.within(-9.0, 9.0)}, {}, {}, 0};
    enum { ZERO = 1, LENGTH, HALF, LIMIT };  // the registers of the first four constants
    program.table = numbers(random, 4, 0.0, 1.0);
    for (int dtype : {FLOAT64, FLOAT32, BFLOAT16, FLOAT16}) {
        inputs.emplace_back(dtype, numbers(random, 1, -2.0, 2.0), random.below(2));
        program.inputs.push_back({inputs.back().pointer.data, dtype});
    }
    int next = static_cast<int>(1 + program.constants.size() + program.inputs.size());
    auto add = [&](int op, int a, int b, int c) {
        program.code.push_back({op, a, b, c});
        return next++;
    };
    for (int i = 0; i < 12; ++i) {
        int op = static_cast<int>(random.below(OP_COUNT));
        int a = static_cast<int>(random.below(next)), b = static_cast<int>(random.below(next));
        if (op == TABLE) add(op, a, ZERO, LENGTH);
        else add(op, a, b, static_cast<int>(random.below(next)));
    }
    int last = next - 1;
    int number = add(SELECT, add(EQUAL, last, last, 0), last, HALF);
    program.result = add(MAX, add(MIN, number, LIMIT, 0), ZERO, 0);
    programs.push_back(std::move(program));
}

Case::Case(Random& random) {
    for (int64_t g = 1 + random.below(3); g > 0; --g)
        groups.push_back({random.one_in(2), random.one_in(2), random.one_in(3),
                          random.one_of<int>({DECAY_LR, DECAY_INDEPENDENT, DECAY_LR_RATIO}),
                          random.one_of<int>({BIAS_POWER, BIAS_PRODUCT}),
                          random.one_of<int>({AGC_OFF, AGC_UNIT, AGC_TENSOR}),
                          random.one_of<int64_t>({0, 0, 1}), 0.5});
    options.clip_norm = random.one_in(2);
    options.infinity_norm = random.one_in(3);
    options.checks_gradients = random.one_in(2);
    options.raises_on_gradients = random.one_in(6);
    options.measures = options.clip_norm || options.checks_gradients || random.one_in(2);
    for (const GroupOptions& group : groups) options.measures |= group.agc != AGC_OFF;
    options.measures |= options.raises_on_gradients;
    options.advance_schedule_on_skip = random.one_in(2);
    options.write_grads = random.one_in(3);
    options.accumulation_steps = random.one_of({1.0, 3.0});
    options.loss_scale = {random.one_in(2), 2.0, 0.5, 1e-3, 1e30, 2, 1};
    values = numbers(random, static_cast<int64_t>(groups.size()) * SLOTS, 0.001, 0.9);
    if (random.one_in(8)) values[static_cast<size_t>(random.below(SLOTS))] = quiet_nan();
    given.reset(new bool[values.size()]);
    inputs.reserve(4 * values.size());  // programs keep addresses
    for (size_t i = 0; i < values.size(); ++i) {
        given[i] = !random.one_in(4);
        if (!given[i]) add_program(random, static_cast<int>(i) / SLOTS, static_cast<int>(i) % SLOTS);
    }
    grad_scale = random.one_of({1.0, 4.0});
    found_inf = random.one_in(10);
    for (int64_t n = random.below(7); n >= 0; --n) add_row(random);
}

// All steps on fresh memory; what they leave, with one pattern for all nan.
std::vector<uint64_t> Case::outcome(int threads, const std::string& instruction_set) const {
    std::vector<Memory> memory;
    std::vector<Tensor> tensors;
    for (const Row& row : rows) {
        for (int i = 0; i < OPERANDS; ++i)
            memory.emplace_back(row.dtypes[i], row.values[i], row.skipped[i]);
        const Memory* of = &memory[memory.size() - OPERANDS];
        Tensor tensor{of[P].pointer, {}, {}, {}, row.count, row.unit, row.group, 0, 0, 0, 0};
        if (!row.frozen) tensor.m = of[M].pointer, tensor.v = of[V].pointer;
        if (!row.frozen && groups[static_cast<size_t>(row.group)].amsgrad) tensor.x = of[X].pointer;
        tensors.push_back(tensor);
    }
    std::vector<int64_t> words(FIELDS + values.size()), counts(rows.size()), gradients(2 * rows.size());
    std::vector<float> steps(rows.size()), scale = {2.0f};
    std::vector<double> products(2 * rows.size(), 1.0), next(values.size());
    Step step(tensors, groups, options, programs,
              {words.data(), scale.data(), counts.data(), steps.data(), products.data()});
    std::vector<uint64_t> left;
    for (int turn = 0; turn < STEPS_OF_A_CASE; ++turn) {
        for (size_t t = 0; t < rows.size(); ++t) {
            Memory& gradient = memory[t * OPERANDS + G];
            gradient.fill(rows[t].gradients[turn]);
            bool exists = !rows[t].frozen && (rows[t].count == 0 || !rows[t].gradients[turn].empty());
            char* address = static_cast<char*>(gradient.pointer.data);
            if (plant == OVERFLOW) address = static_cast<char*>(gradient.pointer.at(1).data);
            if (plant == MISALIGNED) ++address;
            gradients[2 * t] = reinterpret_cast<int64_t>(address);
            gradients[2 * t + 1] = exists ? gradient.pointer.dtype : -1;
        }
        Result result = step.run({gradients.data(), values.data(), given.get(), next.data(),
                                  grad_scale, found_inf, threads, &kernels_for(instruction_set)});
        left.push_back(static_cast<uint64_t>(2 * result.error + result.proceeded));
    }
    auto keep = [&](double x) { left.push_back(bits_of(x == x ? x : quiet_nan())); };
    for (double value : next) keep(value);
    for (size_t i = 0; i < memory.size(); ++i)
        for (int64_t e = 0; e < rows[i / OPERANDS].count; ++e) keep(memory[i].read(e));
    for (int64_t word : words) keep(double_from_bits(static_cast<uint64_t>(word)));
    for (size_t t = 0; t < rows.size(); ++t) {
        left.push_back(static_cast<uint64_t>(counts[t]));
        keep(steps[t]), keep(products[2 * t]), keep(products[2 * t + 1]);
    }
    keep(scale[0]);
    return left;
}

static void require(bool same, int64_t trial, const std::string& what) {
    if (same) return;
    std::printf("trial %lld: other bits with %s\n", static_cast<long long>(trial), what.c_str());
    std::exit(2);
}

static void run_trials(uint64_t seed, int64_t trials) {
    for (int64_t trial = 0; trial < trials; ++trial) {
        Random random{std::mt19937_64(seed + static_cast<uint64_t>(trial))};
        Case chosen(random);
        std::vector<uint64_t> expected = chosen.outcome(1, "baseline"), beside;
        for (const std::string& name : instruction_sets())
            for (int threads : {2, 5})
                require(chosen.outcome(threads, name) == expected, trial,
                        name + ", threads " + std::to_string(threads));
        std::thread other([&] { beside = chosen.outcome(2, "auto"); });
        bool same = chosen.outcome(3, "auto") == expected;
        other.join();
        require(same && beside == expected, trial, "two optimizers at once");
    }
}

static void run_plant(const std::string& name) {
    Random random{std::mt19937_64(1)};
    if (name == "race") {
        int64_t sum = 0;
        std::atomic<int> arrived{0};  // relaxed: it orders nothing
        run_in_threads(2, [&] {
            arrived.fetch_add(1, std::memory_order_relaxed);
            while (arrived.load(std::memory_order_relaxed) < 2) std::this_thread::yield();
            sum += 1;
        });
        return;
    }
    for (int trial = 0; trial < 20; ++trial) {
        Case chosen(random);
        chosen.plant = name == "overflow" ? OVERFLOW : MISALIGNED;
        chosen.outcome(1, "auto");
    }
}

int main(int count, char** arguments) {
    if (count == 3) run_trials(std::strtoull(arguments[1], nullptr, 10), std::atoll(arguments[2]));
    else run_plant(count == 2 ? arguments[1] : "");
    std::puts("ok");
}
