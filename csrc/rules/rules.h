// The list of update rules. A new one is a header and an entry in this list.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "rules/adamw.h"
#include "rules/lion.h"
#include "rules/sgd.h"

namespace lrfused {

template <class... Rule>
struct RuleList {
    // Calls body(Rule()) for the rule at this index.
    template <class Body>
    static void with(int index, Body body) {
        int place = 0;
        ((index == place++ ? body(Rule()) : void()), ...);
    }

    // The index of a rule by name; its scalars must have these names, in this order.
    static int find(const std::string& name, const std::vector<std::string>& scalars) {
        int place = 0, found = -1;
        ((name == Rule::NAME && scalars == names<Rule>() ? (found = place++, 0) : place++), ...);
        if (found < 0) throw std::invalid_argument("rule: no " + name + " with these scalars");
        return found;
    }

  private:
    template <class R>
    static std::vector<std::string> names() {
        static_assert(std::size(R::SCALARS) <= MAX_SCALARS, "Scalars has no room for more");
        return {std::begin(R::SCALARS), std::end(R::SCALARS)};
    }
};

using Rules = RuleList<AdamW, Lion, Sgd>;

}  // namespace lrfused
