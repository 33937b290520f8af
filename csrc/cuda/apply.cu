// The second launch of a step: apply, compiled once for each rule, which LRF_RULE names.
#include "cuda/apply.cuh"
#include "cuda/launch.h"
#include "cuda/riders.cuh"
#include "rules/rules.h"

namespace lrfused {

// The mixtures of types that are likely; as many elements of the tile as that was good for.
template <class Rule, int operands>
__device__ inline int update_wide(const Tile& tile) {
    const int p = tile.p.dtype, g = tile.g.dtype, m = operands ? tile.operands[0].dtype : p;
    bool of_one_type = true;
#pragma unroll
    for (int k = 1; k < operands; ++k) of_one_type &= tile.operands[k].dtype == m;
    if (!of_one_type || !tile.is_aligned<operands>(16)) return 0;
    auto are = [&](int p_, int g_, int m_) { return p == p_ && g == g_ && m == m_; };
    const int count = tile.count / 8 * 8;
    if (are(FLOAT32, FLOAT32, FLOAT32))
        update_aligned<Rule, operands, Mixture<float, float, float>>(tile, count);
    else if (are(BFLOAT16, BFLOAT16, BFLOAT16))
        update_aligned<Rule, operands, Mixture<bfloat16, bfloat16, bfloat16>>(tile, count);
    else if (are(FLOAT16, FLOAT16, FLOAT16))
        update_aligned<Rule, operands, Mixture<float16, float16, float16>>(tile, count);
    else if (are(FLOAT64, FLOAT64, FLOAT64))
        update_aligned<Rule, operands, Mixture<double, double, double>>(tile, count);
    else if (are(FLOAT32, BFLOAT16, FLOAT32))
        update_aligned<Rule, operands, Mixture<float, bfloat16, float>>(tile, count);
    else if (are(FLOAT32, FLOAT16, FLOAT32))
        update_aligned<Rule, operands, Mixture<float, float16, float>>(tile, count);
    else if (are(BFLOAT16, BFLOAT16, FLOAT32))
        update_aligned<Rule, operands, Mixture<bfloat16, bfloat16, float>>(tile, count);
    else if (are(FLOAT16, FLOAT16, FLOAT32))
        update_aligned<Rule, operands, Mixture<float16, float16, float>>(tile, count);
    else
        return 0;
    return count;
}

template <class Rule, int operands>
__device__ inline void update(const Tile& tile) {
    const int done = update_wide<Rule, operands>(tile);
    if (tile.p.dtype == FLOAT64) update_each<Rule, operands, double>(tile, done);
    else update_each<Rule, operands, float>(tile, done);
}

// What plan decided, for one unit of one tensor.
__device__ inline Record<double> make_record(const Arguments& a, const Piece& piece,
                                             int group_index) {
    const GroupOptions& options = a.table.groups[group_index].options;
    const Decision& decision = *a.workspace.decision;
    const double factor = options.agc ? a.workspace.factors[piece.unit] : 1.0;
    return {make_prologue(options.maximize, options.value_clip,
                          a.workspace.groups[group_index].clip_bound, decision.inverse, factor,
                          decision.coefficient),
            a.workspace.rows[a.workspace.row_of[piece.tensor]].scalars};
}

__device__ inline void fill_tile(const Arguments& a, const Piece& piece, TypedPointer g,
                                 Tile& tile) {
    const Tensor& tensor = a.table.tensors[piece.tensor];
    const GroupOptions& options = a.table.groups[tensor.group].options;
    tile.p = tensor.p.at(piece.offset);
    tile.g = g.at(piece.offset);
#pragma unroll
    for (int k = 0; k < MAX_OPERANDS; ++k)
        tile.operands[k] = tensor.operands[k].at(piece.offset);
    tile.count = piece.count;
    tile.clips = options.value_clip;
    tile.writes_gradient = a.options.write_grads;
    tile.maximize = options.maximize;
    const Record<double> record = tile.record = make_record(a, piece, tensor.group);
    tile.rounded = {rounded<float>(record.prologue), rounded<float>(record.scalars)};
}

// What each thread reads first, while measure and plan still run.
__device__ inline void prefetch(TypedPointer pointer, const Piece& piece) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const char* first = static_cast<const char*>(pointer.at(piece.offset).data);
    const char* end = static_cast<const char*>(pointer.at(piece.offset + piece.count).data);
    const char* mine = first + threadIdx.x * 16;
    if (mine < end) asm volatile("prefetch.global.L2 [%0];" ::"l"(mine));
#else
    static_cast<void>(pointer), static_cast<void>(piece);
#endif
}

__device__ inline void wait_for_plan() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ static Tile& shared_tile() {
    __shared__ Tile tile;
    return tile;
}

// Tiles last first: what measure read last is still in L2.
__device__ inline const Piece& tile_of(const Table& table, unsigned block) {
    return table.tiles[gridDim.x - 1 - block];
}

template <class Rule, int capacity>
__global__ void __launch_bounds__(APPLY_THREADS, 4)
    apply(const __grid_constant__ Launch<capacity> a) {
    Tile& tile = shared_tile();
    const Piece& piece = tile_of(a.table, blockIdx.x);
    const Tensor& tensor = a.table.tensors[piece.tensor];
    const GroupOptions& options = a.table.groups[tensor.group].options;
    const TypedPointer g = a.gradient(piece.tensor);
    const bool has_gradient = g.dtype >= 0;
    if (has_gradient) {
        prefetch(tensor.p, piece);
#pragma unroll
        for (int k = 0; k < MAX_OPERANDS; ++k)
            if (k < options.operands) prefetch(tensor.operands[k], piece);
    }
    wait_for_plan();  // on every way, or what is launched after apply would not come after plan
    if (parts_of(a, tensor, g).moves) {
        if (threadIdx.x == 0) fill_tile(a, piece, g, tile);
        __syncthreads();
        Rule::Operands::with(options.operands, [&](auto operands) {
            update<Rule, decltype(operands)::value>(tile);
        });
    }
    if (a.table.rides) ride(a, tile_of(a.table, same_block()));
}

template <class Rule>
void Apply<Rule>::launch(const Arguments& a, Gradients gradients, cudaStream_t stream,
                         bool dependent) {
    const char* name = "cudaLaunchKernelEx(apply)";
    const int64_t blocks = a.table.tiles_count;
    if (gradients.count <= FEW)
        lrfused::launch(apply<Rule, FEW>, name, blocks, APPLY_THREADS, a, gradients, stream,
                        dependent);
    else
        lrfused::launch(apply<Rule, MANY>, name, blocks, APPLY_THREADS, a, gradients, stream,
                        dependent);
}

template <class Rule>
bool Apply<Rule>::is_compiled_for_dependent_launch() {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, apply<Rule, FEW>), "cudaFuncGetAttributes(apply)");
    return attributes.ptxVersion >= 90;
}

template <class Rule>
void Apply<Rule>::prefer_carveout(int percent) {
    lrfused::prefer_carveout(apply<Rule, FEW>, percent);
    lrfused::prefer_carveout(apply<Rule, MANY>, percent);
}

template struct Apply<LRF_RULE>;

}  // namespace lrfused
