// The inner loops, compiled once per instruction set; LRF_ISA is this one's namespace.
// Plain C++ with independent lanes, so that vector code gives the same bits as scalar code.

#include "cpu/tiles.inl"
#include "cpu/riders.inl"
#include "cpu/measure.inl"
#include "cpu/apply.inl"
