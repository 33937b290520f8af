// What is done to the elements of a tensor, in a compute type.
#pragma once

#include "core/prologue.h"
#include "core/scalars.h"

namespace lrfused {

template <class C>
struct Record {
    Prologue<C> prologue;
    Scalars<C> scalars;
};

}  // namespace lrfused
