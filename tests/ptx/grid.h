// Blocks and threads of translated PTX: grids whose blocks, a few of them at a time, run as fibers.
//
// A thread runs until it waits for others; under the memory model it may give way at any access,
// too. Which warp goes on, and which block, is drawn at random from a seed.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../cuda_emulated/fiber.h"
#include "races.h"

namespace {

constexpr u32 WARP = 32, RESIDENT = 3, RESIDENT_CHECKED = 8, GIVES_WAY = 8;
constexpr size_t STACK = 512 * 1024;

enum State { READY, AT_EXCHANGE, AT_WARP_BARRIER, AT_BLOCK_BARRIER, AT_BLOCK_VOTE, AT_GRIDS, DONE };

struct Thread : emulated::FiberContext {
    State state = DONE;
    u32 exchanges = 0, votes = 0;
    int line = 0;  // where it waits
};

struct Grid {
    void (*entry)() = nullptr;
    std::string name;
    std::vector<char> parameters;
    u32 number = 0, blocks = 0, threads = 0, shared = 0;
    u32 begun = 0, ended = 0, invites = 0;
    std::vector<u32> order;
};

struct Block {
    Grid* grid = nullptr;
    u32 index = 0;
    bool invites = false;  // those that depend on its grid
    weak::Block seen;
    std::vector<Thread> threads = std::vector<Thread>(1024);
    std::vector<char> shared;
    u64 exchanged[2][1024];
    u32 voted[2][1024];  // the number of the vote, of those that say yes
};

std::mt19937_64 random_bits;
std::string error;
std::vector<std::unique_ptr<Block>> places;
Block* block;
u32 me;  // of the thread that runs

std::vector<std::unique_ptr<Grid>> grids;  // that run together
u32 numbered;                              // blocks of them

Thread& thread() { return block->threads[me]; }
weak::Thread& seen() { return block->seen.threads[me]; }
bool is_checked() { return ptx_thread.checked; }

u32 any(u32 count) { return u32(random_bits() % count); }

void give_way(State state, int line) {
    thread().state = state;
    thread().line = line;
    emulated::give_way(thread());
}

void run_thread(u32 index) {
    me = index;
    ptx_thread.tid = index;
    emulated::resume(thread(), STACK);
}

void at(Block& chosen) {
    block = &chosen;
    ptx_thread.ctaid = block->index;
    ptx_thread.ntid = block->grid->threads;
    ptx_thread.nctaid = block->grid->blocks;
    ptx_thread.shared = block->shared.data();
    ptx_thread.shared_size = block->shared.size();
    ptx_thread.parameters = block->grid->parameters.data();
    ptx_thread.parameter_size = block->grid->parameters.size();
    emulated::body = block->grid->entry;
}

std::vector<u32> any_order(u32 count) {
    std::vector<u32> order(count);
    for (u32 i = 0; i < count; ++i) order[i] = i;
    for (u32 i = count; i > 1; --i) std::swap(order[i - 1], order[any(i)]);
    return order;
}

bool any_in(u32 first, u32 end, State state) {
    for (u32 i = first; i < end; ++i)
        if (block->threads[i].state == state) return true;
    return false;
}

// Whether the threads of every warp wait at one line: bar.sync is aligned.
bool one_line_each(u32 first, u32 end) {
    for (u32 i = first, line = 0; i < end; ++i) {
        if (i % WARP == 0) line = 0;
        const Thread& its = block->threads[i];
        if (its.state == DONE) continue;
        if (line && its.line != int(line)) {
            error = block->grid->name + ", line " + std::to_string(line) + ": a warp that waits at line " +
                    std::to_string(its.line) + ", too";
            return false;
        }
        line = u32(its.line);
    }
    return true;
}

// Lets those go on who waited for others that have all come; an ended thread is not waited for.
bool release(u32 first, u32 end, State state) {
    bool some = false;
    for (u32 i = first; i < end; ++i) {
        const State its = block->threads[i].state;
        if (its != state && its != DONE) return false;
        some |= its == state;
    }
    if (!some) return false;
    const bool whole = state == AT_BLOCK_BARRIER || state == AT_BLOCK_VOTE;
    if (whole && !one_line_each(first, end)) return false;
    for (u32 i = first; i < end; ++i)
        if (block->threads[i].state == state) block->threads[i].state = READY;
    weak::Block& model = block->seen;
    if (is_checked() && (whole || state == AT_WARP_BARRIER))
        weak::meet(model, first, end, whole ? model.at_barrier : model.at_warp_barrier);
    return true;
}

bool all_in(State state) {
    const auto end = block->threads.begin() + block->grid->threads;
    return std::all_of(block->threads.begin(), end, [&](Thread& t) { return t.state == state; });
}

// A warp's threads, each as far as it goes; under the memory model one of them, to its next access.
// Whether one went.
bool run_warp(u32 first, u32 end) {
    if (!any_in(first, end, READY))
        return release(first, end, AT_EXCHANGE) || release(first, end, AT_WARP_BARRIER);
    for (u32 i : any_order(end - first)) {
        if (block->threads[first + i].state != READY) continue;
        run_thread(first + i);
        if (!error.empty()) return false;
        if (is_checked()) break;
    }
    return true;
}

// One warp as far as it goes while the others stand still, so that a missing barrier shows best.
// Whether the block goes on.
bool run_block() {
    const u32 threads = block->grid->threads;
    for (u32 warp : any_order((threads + WARP - 1) / WARP)) {
        const u32 end = std::min((warp + 1) * WARP, threads);
        bool ran = run_warp(warp * WARP, end);
        if (!ran && error.empty()) continue;
        while (ran && !is_checked()) ran = run_warp(warp * WARP, end);
        return error.empty();
    }
    if (release(0, threads, AT_BLOCK_BARRIER) || release(0, threads, AT_BLOCK_VOTE)) return true;
    if (any_in(0, threads, AT_GRIDS)) return true;
    if (error.empty() && !all_in(DONE))
        error = block->grid->name + ": a barrier that not all threads reach";
    return false;
}

void begin(Block& place, Grid& grid) {
    place.grid = &grid;
    place.index = grid.order[grid.begun++];
    place.invites = false;
    place.shared.resize(grid.shared);
    for (char& byte : place.shared) byte = char(random_bits());  // what nobody wrote
    for (u32 i = 0; i < grid.threads; ++i) {
        Thread& its = place.threads[i];
        its.state = READY;
        its.exchanges = its.votes = place.voted[0][i] = place.voted[1][i] = 0;
    }
    if (!is_checked()) return;
    place.seen = weak::Block();
    place.seen.number = numbered++;
    place.seen.grid = grid.number;
    place.seen.threads.resize(grid.threads);
    place.seen.at_barrier.resize(grid.threads);
    place.seen.at_warp_barrier.resize(grid.threads);
    place.seen.unwritten.assign(grid.shared, true);
}

void invite(Block& from) {
    if (!from.invites) ++from.grid->invites;
    from.invites = true;
}

// The grid of which another block may begin; one that depends on another comes after its blocks.
Grid* next_grid() {
    for (size_t i = 0; i < grids.size(); ++i) {
        if (i && (grids[i - 1]->begun < grids[i - 1]->blocks || grids[i - 1]->invites < grids[i - 1]->blocks))
            return nullptr;
        if (grids[i]->begun < grids[i]->blocks) return grids[i].get();
    }
    return nullptr;
}

bool have_ended_before(u32 number) {
    const auto end = grids.begin() + number;
    return std::all_of(grids.begin(), end, [](const auto& grid) { return grid->ended == grid->blocks; });
}

void end(std::vector<Block*>& running, size_t chosen) {
    if (is_checked())
        for (weak::Thread& thread : block->seen.threads) weak::show_all(block->seen, thread);
    invite(*block);
    ++block->grid->ended;
    running.erase(running.begin() + long(chosen));
}

Block& free_place(const std::vector<Block*>& running) {
    for (const std::unique_ptr<Block>& place : places)
        if (std::find(running.begin(), running.end(), place.get()) == running.end()) return *place;
    places.push_back(std::make_unique<Block>());
    return *places.back();
}

// One block goes on most of the time; now and then another does, for a short time.
void run() {
    const u32 count = is_checked() ? RESIDENT_CHECKED : 1 + any(RESIDENT);
    std::vector<Block*> running;
    for (const std::unique_ptr<Grid>& grid : grids) grid->order = any_order(grid->blocks);
    numbered = 0;
    for (;;) {
        Grid* grid = next_grid();
        if (grid && running.size() < count) {
            Block& place = free_place(running);
            begin(place, *grid);
            running.push_back(&place);
            continue;
        }
        if (running.empty()) return;
        const size_t chosen = any(3) ? 0 : any(u32(running.size()));
        at(*running[chosen]);
        if (have_ended_before(block->grid->number))
            for (Thread& thread : block->threads)
                if (thread.state == AT_GRIDS) thread.state = READY;
        bool goes_on = true;
        for (u32 steps = 1 + any(chosen ? 4 : 64); goes_on && steps; --steps) goes_on = run_block();
        if (!error.empty()) return;
        if (!goes_on) end(running, chosen);
    }
}

}  // namespace
