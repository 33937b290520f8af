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
#include "programs.h"

enum Plant { NOTHING, OVERFLOW, MISALIGNED };
enum Place { P, G, STATE, AVERAGE = STATE + MAX_OPERANDS, PLACES };  // the memory of a row

constexpr int STEPS_OF_A_CASE = 3;

// One random table with its values, options and gradients; every run of it starts from a copy.
struct Case {
    struct Row {
        int64_t count, unit;
        int group, dtypes[PLACES], skipped[PLACES];
        bool frozen;  // never a gradient, and so no state
        std::vector<double> values[PLACES], gradients[STEPS_OF_A_CASE];  // empty: no gradient
        std::vector<uint32_t> mask;  // as far as the kernels read; empty: none
    };

    std::vector<Row> rows;
    std::vector<GroupRow> groups;
    Options options{};
    std::vector<ProgramRow> programs;
    std::vector<Memory> inputs;
    std::vector<double> values;
    std::unique_ptr<bool[]> given;
    double grad_scale;
    bool found_inf;
    Plant plant = NOTHING;

    explicit Case(Random& random);
    void choose_options(Random& random);
    void add_row(Random& random);
    std::vector<TensorRow> tensors_in(const std::vector<Memory>& memory) const;
    std::vector<uint64_t> outcome(int threads, const std::string& instruction_set) const;
};

void Case::add_row(Random& random) {
    Row row{};
    int64_t length = random.one_of<int64_t>({0, 1, 2, 3, 17, 63, 64, 65, 511, 512, 513, 1500});
    if (random.one_in(6)) length = random.one_of<int64_t>({32768, 65535, 65536, 65537, 70001});
    bool by_unit = length && random.one_in(2), uniform = random.one_in(2);
    row.unit = by_unit ? length : 0;
    row.count = by_unit ? length * random.one_of<int64_t>({1, 2, 5}) : length;
    row.group = static_cast<int>(random.below(static_cast<int64_t>(groups.size())));
    row.frozen = random.one_in(8);
    for (int i = 0; i < PLACES; ++i) {
        row.dtypes[i] = random.one_of({FLOAT64, FLOAT32, BFLOAT16, FLOAT16});
        if (uniform) row.dtypes[i] = row.dtypes[P];
        row.skipped[i] = random.one_of({0, 0, 1, 3, 5});
        row.values[i] = numbers(random, row.count, i > STATE ? 0.0 : -1.0, 1.0);
    }
    if (random.one_in(3))
        for (int64_t word = 0; word <= (row.count + 31) / 32; ++word)
            row.mask.push_back(static_cast<uint32_t>(random.bits()));
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

template <class... Rule>
static int64_t size_of(RuleList<Rule...>) {
    return sizeof...(Rule);
}

void Case::choose_options(Random& random) {
    options.rule = static_cast<int>(random.below(size_of(Rules())));
    options.slots = static_cast<int>(FIRST_OF_RULES + random.below(MAX_SLOTS - FIRST_OF_RULES + 1));
    options.carried = static_cast<int>(random.below(MAX_CARRIED + 1));
    options.clip_norm = random.one_in(2);
    options.infinity_norm = random.one_in(3);
    options.checks_gradients = random.one_in(2);
    options.raises_on_gradients = random.one_in(6);
    options.measures = options.clip_norm || options.checks_gradients || random.one_in(2);
    options.measures |= options.raises_on_gradients;
    options.advance_schedule_on_skip = random.one_in(2);
    options.write_grads = random.one_in(3);
    options.zero_grads = !options.write_grads && random.one_in(3);
    options.accumulation_steps = random.one_of({1.0, 3.0});
    options.loss_scale = {random.one_in(2), 2.0, 0.5, 1e-3, 1e30, 2, 1};
}

Case::Case(Random& random) {
    choose_options(random);
    for (int64_t g = 1 + random.below(3); g > 0; --g)
        groups.push_back(random_group(random, options));
    for (const GroupRow& group : groups) options.measures |= group.options.agc != AGC_OFF;
    const int slots = options.slots;
    values = numbers(random, static_cast<int64_t>(groups.size()) * slots, 0.001, 0.9);
    if (random.one_in(8)) values[static_cast<size_t>(random.below(slots))] = quiet_nan();
    given.reset(new bool[values.size()]);
    inputs.reserve(4 * values.size());  // programs keep addresses
    for (size_t i = 0; i < values.size(); ++i) {
        given[i] = !random.one_in(4);
        if (given[i]) continue;
        programs.push_back(random_schedule(random, inputs));
        programs.back().group = static_cast<int>(i) / slots;
        programs.back().slot = static_cast<int>(i) % slots;
    }
    grad_scale = random.one_of({1.0, 4.0});
    found_inf = random.one_in(10);
    for (int64_t n = random.below(7); n >= 0; --n) add_row(random);
}

// The table; operands that a row does not have are null.
std::vector<TensorRow> Case::tensors_in(const std::vector<Memory>& memory) const {
    std::vector<TensorRow> tensors;
    for (const Row& row : rows) {
        const Memory* of = &memory[tensors.size() * PLACES];
        const GroupOptions& group = groups[static_cast<size_t>(row.group)].options;
        TensorRow tensor{};
        tensor.p = of[P].pointer;
        if (group.average_every) tensor.average = of[AVERAGE].pointer;
        if (!row.mask.empty()) tensor.mask = row.mask.data();
        tensor.count = row.count;
        tensor.unit = row.unit;
        tensor.group = row.group;
        int operands = row.frozen ? 0 : group.operands;
        for (int i = 0; i < operands; ++i) tensor.operands[i] = of[STATE + i].pointer;
        tensors.push_back(tensor);
    }
    return tensors;
}

// All steps on fresh memory; what they leave, with one pattern for all nan.
std::vector<uint64_t> Case::outcome(int threads, const std::string& instruction_set) const {
    std::vector<Memory> memory;
    for (const Row& row : rows)
        for (int i = 0; i < PLACES; ++i)
            memory.emplace_back(row.dtypes[i], row.values[i], row.skipped[i]);
    std::vector<int64_t> words(FIELDS + values.size()), counts(rows.size());
    std::vector<int64_t> gradients(2 * rows.size());
    std::vector<float> steps(rows.size()), scale = {2.0f};
    std::vector<double> carried(rows.size() * static_cast<size_t>(options.carried), 1.0);
    std::vector<double> next(values.size());
    Step step(tensors_in(memory), groups, options, programs,
              {words.data(), scale.data(), counts.data(), steps.data(), carried.data()});
    std::vector<uint64_t> left;
    for (int turn = 0; turn < STEPS_OF_A_CASE; ++turn) {
        for (size_t t = 0; t < rows.size(); ++t) {
            const Row& row = rows[t];
            Memory& gradient = memory[t * PLACES + G];
            gradient.fill(row.gradients[turn]);
            bool exists = !row.frozen && (row.count == 0 || !row.gradients[turn].empty());
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
        for (int64_t e = 0; e < rows[i / PLACES].count; ++e) keep(memory[i].read(e));
    for (int64_t word : words) keep(double_from_bits(static_cast<uint64_t>(word)));
    for (int64_t count : counts) left.push_back(static_cast<uint64_t>(count));
    for (float shown : steps) keep(shown);
    for (double number : carried) keep(number);
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
