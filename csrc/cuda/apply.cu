// The second launch of a step: apply.
#include "cuda/apply.cuh"
#include "cuda/launch.h"
#include "cuda/step.h"

namespace lrfused {

// The mixtures of types that are likely; as many elements of the tile as that was good for.
template <bool amsgrad>
__device__ inline int update_wide(const Tile& tile) {
    const int p = tile.p.dtype, g = tile.g.dtype, m = tile.m.dtype;
    if (!tile.is_aligned(16) || tile.v.dtype != m || (amsgrad && tile.x.dtype != m)) return 0;
    auto are = [&](int p_, int g_, int m_) { return p == p_ && g == g_ && m == m_; };
    const int count = tile.count / 8 * 8;
    if (are(FLOAT32, FLOAT32, FLOAT32))
        update_aligned<float, float, float, amsgrad>(tile, count);
    else if (are(BFLOAT16, BFLOAT16, BFLOAT16))
        update_aligned<bfloat16, bfloat16, bfloat16, amsgrad>(tile, count);
    else if (are(FLOAT16, FLOAT16, FLOAT16))
        update_aligned<float16, float16, float16, amsgrad>(tile, count);
    else if (are(FLOAT64, FLOAT64, FLOAT64))
        update_aligned<double, double, double, amsgrad>(tile, count);
    else if (are(FLOAT32, BFLOAT16, FLOAT32))
        update_aligned<float, bfloat16, float, amsgrad>(tile, count);
    else if (are(FLOAT32, FLOAT16, FLOAT32))
        update_aligned<float, float16, float, amsgrad>(tile, count);
    else if (are(BFLOAT16, BFLOAT16, FLOAT32))
        update_aligned<bfloat16, bfloat16, float, amsgrad>(tile, count);
    else if (are(FLOAT16, FLOAT16, FLOAT32))
        update_aligned<float16, float16, float, amsgrad>(tile, count);
    else
        return 0;
    return count;
}

template <bool amsgrad>
__device__ inline void update(const Tile& tile) {
    const int done = update_wide<amsgrad>(tile);
    if (tile.p.dtype == FLOAT64) update_each<double, amsgrad>(tile, done);
    else update_each<float, amsgrad>(tile, done);
}

// What plan decided, for one unit of one tensor.
__device__ inline Record<double> make_record(const Arguments& a, const Piece& piece,
                                             int group_index) {
    const GroupOptions& options = a.table.groups[group_index].options;
    const GroupPlan& group = a.room.groups[group_index];
    const TensorPlan& tensor = a.room.tensors[piece.tensor];
    const double inverse = a.room.decision->inverse, coefficient = a.room.decision->coefficient;
    const double factor = options.agc ? a.room.factors[piece.unit] : 1.0;
    const double sign = options.maximize ? -1.0 : 1.0;
    return {
        options.value_clip ? sign * inverse : sign * ((inverse * factor) * coefficient),
        group.bound,
        options.value_clip ? factor * coefficient : 1.0,
        group.decay,
        group.beta1,
        group.one_minus_beta1,
        group.beta2,
        group.one_minus_beta2,
        group.eps,
        tensor.step_size,
        tensor.inverse_root,
    };
}

__device__ inline Tile make_tile(const Arguments& a, const Piece& piece, Stretch g) {
    const Tensor& tensor = a.table.tensors[piece.tensor];
    const GroupOptions& options = a.table.groups[tensor.group].options;
    Tile tile;
    tile.p = at(tensor.p, piece.offset);
    tile.g = at(g, piece.offset);
    tile.m = at(tensor.m, piece.offset);
    tile.v = at(tensor.v, piece.offset);
    tile.x = options.amsgrad ? at(tensor.x, piece.offset) : tile.p;
    tile.count = piece.count;
    tile.clips = options.value_clip;
    tile.writes_gradient = a.options.write_grads;
    tile.maximize = options.maximize;
    const Record<double> r = tile.record = make_record(a, piece, tensor.group);
    auto single = [](double number) { return static_cast<float>(number); };
    tile.rounded = {single(r.before), single(r.bound), single(r.after), single(r.decay),
                    single(r.beta1), single(r.one_minus_beta1), single(r.beta2),
                    single(r.one_minus_beta2), single(r.eps), single(r.step_size),
                    single(r.inverse_root)};
    return tile;
}

// What each thread reads first, while measure and plan still run.
__device__ inline void prefetch(Stretch stretch, const Piece& piece) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    const char* first = static_cast<const char*>(at(stretch, piece.offset).data);
    const char* end = static_cast<const char*>(at(stretch, piece.offset + piece.count).data);
    const char* mine = first + threadIdx.x * 16;
    if (mine < end) asm volatile("prefetch.global.L2 [%0];" ::"l"(mine));
#else
    static_cast<void>(stretch), static_cast<void>(piece);
#endif
}

__device__ inline void wait_for_plan() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline Tile& shared_tile() {
    __shared__ Tile tile;
    return tile;
}

// Tiles last first: what measure read last is still in L2.
template <int capacity>
__global__ void __launch_bounds__(APPLY_THREADS, 4)
    apply(const __grid_constant__ Launch<capacity> a) {
    Tile& tile = shared_tile();
    const Piece& piece = a.table.tiles[gridDim.x - 1 - blockIdx.x];
    const Tensor& tensor = a.table.tensors[piece.tensor];
    const Stretch g = a.gradient(piece.tensor);
    const bool has_gradient = g.dtype >= 0;
    if (has_gradient) {
        prefetch(tensor.p, piece);
        prefetch(tensor.m, piece);
        prefetch(tensor.v, piece);
    }
    wait_for_plan();  // on every way, or what is launched after apply would not come after plan
    if (!has_gradient || !a.room.decision->proceed || !a.room.groups[tensor.group].active) return;
    if (threadIdx.x == 0) tile = make_tile(a, piece, g);
    __syncthreads();
    if (a.table.groups[tensor.group].options.amsgrad) update<true>(tile);
    else update<false>(tile);
}

void launch_apply(const Arguments& a, Gradients gradients, cudaStream_t stream, bool dependent) {
    const char* name = "cudaLaunchKernelEx(apply)";
    int64_t blocks = a.table.tiles_count;
    if (gradients.count <= FEW)
        launch(apply<FEW>, name, blocks, APPLY_THREADS, a, gradients, stream, dependent);
    else
        launch(apply<MANY>, name, blocks, APPLY_THREADS, a, gradients, stream, dependent);
}

void prefer_apply_carveout(int percent) {
    prefer_carveout(apply<FEW>, percent);
    prefer_carveout(apply<MANY>, percent);
}

bool is_compiled_for_dependent_launch() {
    cudaFuncAttributes attributes;
    check(cudaFuncGetAttributes(&attributes, apply<FEW>), "cudaFuncGetAttributes(apply)");
    return attributes.ptxVersion >= 90;
}

}  // namespace lrfused
