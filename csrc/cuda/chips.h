// The chips that a build is for: entries of torch's form, "8.0:9.0a:12.0+PTX" (csrc/build_cuda.py).
#pragma once

#include <sstream>
#include <string>
#include <vector>

namespace lrfused {

struct Chip {
    int number;    // 90 is 9.0
    char variant;  // a: for that chip alone; f: for its family; or 0
    bool has_ptx;  // beside machine code

    // Machine code runs on later minor versions of its chip, PTX on whatever is newer.
    bool serves(int wanted) const {
        if (variant == 'a') return wanted == number;
        if (wanted / 10 == number / 10) return wanted >= number;
        return has_ptx && !variant && wanted > number;
    }
};

inline std::vector<Chip> chips(const std::string& list) {
    std::vector<Chip> found;
    std::stringstream entries(list);
    for (std::string entry; std::getline(entries, entry, ':');) {
        const size_t minor = entry.find('.') + 1;
        const char next = minor + 1 < entry.size() ? entry[minor + 1] : '+';
        found.push_back({10 * std::stoi(entry) + (entry[minor] - '0'), next == '+' ? '\0' : next,
                         entry.find("+PTX") != std::string::npos});
    }
    return found;
}

inline bool supports(const std::string& list, int major, int minor) {
    for (const Chip& chip : chips(list))
        if (chip.serves(10 * major + minor)) return true;
    return false;
}

}  // namespace lrfused
