// The inner loops, compiled once an instruction set; LRF_ISA is the namespace of this one.
// The loops are plain: what matters is that lanes are independent, so that the compiler's
// vectors compute what its scalars would, bit for bit.

#include "cpu/tiles.inl"
#include "cpu/measure.inl"
#include "cpu/apply.inl"
