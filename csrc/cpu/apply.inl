// Apply: a rule's update of a chunk. Included by kernels.inl.

namespace lrfused {
namespace LRF_ISA {

template <class C>
const Scalars<C>& scalars_of(const ApplyTask& task) {
    if constexpr (sizeof(C) == 8) return *task.scalars;
    else return *task.rounded;
}

template <class C>
Record<C> rounded(const ApplyTask& task) {
    return {lrfused::rounded<C>(task.prologue), scalars_of<C>(task)};
}

// T: the storage type of all tensors; S...: T, once for each state operand; C: the compute type.
template <class Rule, class C, class T, class... S>
void update_each(const T* __restrict g, T* __restrict p, int64_t count, const Record<C> r,
                 S* __restrict... operands) {
    constexpr int size = sizeof...(S);
    for (int64_t i = 0; i < count; ++i) {
        C gradient, param, state[size + 1];
        [[maybe_unused]] int k = 0, j = 0;
        read_as(g[i], gradient);
        read_as(p[i], param);
        (read_as(operands[i], state[k++]), ...);
        Rule::template update<size>(clip_gradient(gradient, r.prologue), param, state, r.scalars);
        write_as(param, p[i]);
        (write_as(state[j++], operands[i]), ...);
    }
}

// Two neighbours read and written as one word, so that no data moves between vector lanes.
struct Pair {
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
    float low, high;

    static Pair read(const bfloat16* x) {
        uint32_t word;
        memcpy(&word, x, sizeof word);
        return {float_from_bits(word << 16), float_from_bits(word & 0xFFFF0000u)};
    }

    static void write(float low, float high, bfloat16* x) {
        uint32_t word = (rounded_above(high) & 0xFFFF0000u) | (rounded_above(low) >> 16);
        memcpy(x, &word, sizeof word);
    }
};

template <class Rule, class C, class... S>
void update_pairs(const bfloat16* __restrict g, bfloat16* __restrict p, int64_t count,
                  const Record<C> r, S* __restrict... operands) {
    constexpr int size = sizeof...(S);
    for (int64_t i = 0; i < count; i += 2) {
        C low[size + 1], high[size + 1];
        [[maybe_unused]] int k = 0, j = 0;
        Pair gradient = Pair::read(g + i), param = Pair::read(p + i);
        [[maybe_unused]] auto open = [&](const bfloat16* x) {
            Pair pair = Pair::read(x);
            low[k] = pair.low;
            high[k++] = pair.high;
        };
        (open(operands + i), ...);
        const Prologue<C>& prologue = r.prologue;
        Rule::template update<size>(clip_gradient(gradient.low, prologue), param.low, low,
                                    r.scalars);
        Rule::template update<size>(clip_gradient(gradient.high, prologue), param.high, high,
                                    r.scalars);
        Pair::write(param.low, param.high, p + i);
        ((Pair::write(low[j], high[j], operands + i), ++j), ...);
    }
}

template <class Rule, class C, class T, class... S>
void update(const T* g, T* p, int64_t count, const Record<C>& r, S*... operands) {
    int64_t even = 0;
    if constexpr (std::is_same_v<T, bfloat16>) {
        even = count - count % 2;
        update_pairs<Rule, C>(g, p, even, r, operands...);
    }
    update_each<Rule, C>(g + even, p + even, count - even, r, (operands + even)...);
}

template <class C, class T>
void write_gradient(T* g, int64_t count, bool maximize, const Prologue<C> r) {
    for (int64_t i = 0; i < count; ++i) {
        C gradient;
        read_as(g[i], gradient);
        C clipped = clip_gradient(gradient, r);
        write_as(maximize ? -clipped : clipped, g[i]);
    }
}

// Indices of a task's operands, to be expanded as a pack.
template <size_t... i>
using Places = std::index_sequence<i...>;

// All tensors have one storage type: no tiles, no copies.
template <class Rule, class C, class T, size_t... i>
void apply_in_place(const ApplyTask& task, Places<i...>) {
    const Record<C> record = rounded<C>(task);
    T* g = static_cast<T*>(task.g.data);
    update<Rule, C>(g, static_cast<T*>(task.p.data), task.count, record,
                    static_cast<T*>(task.operands[i].data)...);
    if (task.write_gradient) write_gradient<C>(g, task.count, task.maximize, record.prologue);
}

// Any mixture of storage types: by tiles in the compute type.
template <class Rule, class C, size_t... i>
void apply_by_tiles(const ApplyTask& task, Places<i...>) {
    alignas(64) C buffers[2 + sizeof...(i)][TILE];
    const Record<C> record = rounded<C>(task);
    for (int64_t start = 0; start < task.count; start += TILE) {
        int size = static_cast<int>(task.count - start < TILE ? task.count - start : TILE);
        C* g = open_tile(task.g.at(start), buffers[0], size);
        C* p = open_tile(task.p.at(start), buffers[1], size);
        C* state[] = {open_tile(task.operands[i].at(start), buffers[2 + i], size)..., nullptr};
        update<Rule, C>(g, p, size, record, state[i]...);
        if (task.write_gradient) {
            write_gradient<C>(g, size, task.maximize, record.prologue);
            close_tile(task.g.at(start), g, size);
        }
        close_tile(task.p.at(start), p, size);
        (close_tile(task.operands[i].at(start), state[i], size), ...);
    }
}

template <class Rule, class C, size_t... i>
void apply_as(const ApplyTask& task, Places<i...> places) {
    int dtype = task.p.dtype;
    bool uniform = task.g.dtype == dtype && ((task.operands[i].dtype == dtype) && ...);
    if (!uniform) return apply_by_tiles<Rule, C>(task, places);
    if constexpr (sizeof(C) == 8) return apply_in_place<Rule, C, double>(task, places);
    else if (dtype == FLOAT32) return apply_in_place<Rule, C, float>(task, places);
    else if (dtype == BFLOAT16) return apply_in_place<Rule, C, bfloat16>(task, places);
    else return apply_in_place<Rule, C, float16>(task, places);
}

void update_by_rule(const ApplyTask& task) {
    Rules::with(task.rule, [&](auto rule) {
        using Rule = decltype(rule);
        Rule::Operands::with(task.operands_count, [&](auto count) {
            std::make_index_sequence<decltype(count)::value> places;
            if (task.double_precision) apply_as<Rule, double>(task, places);
            else apply_as<Rule, float>(task, places);
        });
    });
}

// Riders come after so many elements: what they read again is still in a cache.
constexpr int64_t RIDE_LENGTH = 16 * TILE;

void apply(const ApplyTask& task) {
    if (!task.rides()) return update_by_rule(task);
    for (int64_t start = 0; start < task.count; start += RIDE_LENGTH) {
        const ApplyTask part = task.at(start, std::min(task.count - start, RIDE_LENGTH));
        if (part.moves) update_by_rule(part);
        ride(part);
    }
}

}  // namespace LRF_ISA
}  // namespace lrfused
