// Random numbers, and memory that ends exactly where its numbers end.
#pragma once

#include <initializer_list>
#include <memory>
#include <random>
#include <vector>

#include "cpu/kernels.h"

using namespace lrfused;

struct Random {
    std::mt19937_64 bits;

    int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
    bool one_in(int64_t n) { return below(n) == 0; }
    double within(double low, double high) {
        return low + (high - low) * (static_cast<double>(bits() >> 11) * 0x1p-53);
    }
    template <class T>
    T one_of(std::initializer_list<T> choices) {
        return choices.begin()[below(static_cast<int64_t>(choices.size()))];
    }
};

// Numbers of one type in an allocation that ends where they end. With skipped elements in front
// of them they lie at no larger alignment than their own.
class Memory {
  public:
    Memory(int dtype, const std::vector<double>& values, int64_t skipped) {
        constexpr size_t size[] = {8, 4, 2, 2};
        bytes.reset(new char[(values.size() + static_cast<size_t>(skipped)) * size[dtype]]);
        pointer = TypedPointer{bytes.get(), dtype}.at(skipped);
        fill(values);
    }

    void fill(const std::vector<double>& values) {
        for (size_t i = 0; i < values.size(); ++i) {
            TypedPointer place = pointer.at(static_cast<int64_t>(i));
            switch (pointer.dtype) {
                case FLOAT64: *static_cast<double*>(place.data) = values[i]; break;
                case FLOAT32: write_as(values[i], *static_cast<float*>(place.data)); break;
                case BFLOAT16: write_as(values[i], *static_cast<bfloat16*>(place.data)); break;
                case FLOAT16: write_as(values[i], *static_cast<float16*>(place.data)); break;
            }
        }
    }

    double read(int64_t element) const {
        TypedPointer place = pointer.at(element);
        double value = 0.0;
        switch (pointer.dtype) {
            case FLOAT64: return *static_cast<double*>(place.data);
            case FLOAT32: return *static_cast<float*>(place.data);
            case BFLOAT16: read_as(*static_cast<bfloat16*>(place.data), value); break;
            case FLOAT16: read_as(*static_cast<float16*>(place.data), value); break;
        }
        return value;
    }

    TypedPointer pointer;

  private:
    std::unique_ptr<char[]> bytes;
};
