#include <algorithm>
#include <array>

#include "apps/domains.h"

// Programs of a few lines in a subset of Python: a function of two arguments, every name defined before it is used,
// then calls of it, each with its true result in a comment.

namespace agon {

namespace {

using Strings = std::vector<std::string>;

const Strings kVerbs{"add", "scale", "shift", "clip",  "merge", "trim", "pick", "fold",
                     "mix", "rank",  "pad",   "split", "join",  "wrap", "drop", "find"};
const Strings kNouns{"total", "count", "limit", "width", "height", "offset", "index",  "size",  "price", "score",
                     "level", "speed", "rate",  "depth", "margin", "weight", "length", "delay", "value", "start"};

size_t pick(Random& random, size_t n) { return size_t(random.below(random.below(n) + 1)); }

int64_t apply(int64_t a, char op, int64_t b) { return op == '+' ? a + b : op == '-' ? a - b : a * b; }

/// A variable (index >= 0) or a constant.
struct Operand {
  int variable;
  int64_t constant;
};

struct Expression {
  Operand left;
  char op;
  Operand right;
};

/// target = value; or, with `test`: if left > right: then the statement.
struct Statement {
  bool conditional, returns;
  Operand low, high;
  int target;
  Expression value;
};

class Program {
 public:
  explicit Program(Random& random) : random_(random) {
    function_ = kVerbs[pick(random_, kVerbs.size())] + "_";
    function_ += kNouns[pick(random_, kNouns.size())];
    define();
    define();
    for (uint64_t i = 0, n = 1 + random_.below(4); i < n; ++i) add();
    body_.push_back({false, true, {}, {}, 0, expression()});
  }

  std::string source() const {
    std::string out = "def " + function_ + "(" + names_[0] + ", " + names_[1] + "):\n";
    for (const Statement& s : body_) {
      out += "    ";
      if (s.conditional) out += "if " + show(s.low) + " > " + show(s.high) + ":\n        ";
      out += (s.returns ? "return " : names_[size_t(s.target)] + " = ") + show(s.value.left) + " " + s.value.op + " " +
             show(s.value.right) + "\n";
    }
    return out;
  }

  std::string call(int64_t a, int64_t b) const {
    return "print(" + function_ + "(" + std::to_string(a) + ", " + std::to_string(b) + "))  # " +
           std::to_string(run(a, b)) + "\n";
  }

 private:
  void define() {
    std::string name;
    do name = kNouns[pick(random_, kNouns.size())];
    while (std::find(names_.begin(), names_.end(), name) != names_.end());
    names_.push_back(name);
  }
  Operand variable() { return {int(random_.below(names_.size())), 0}; }
  Operand constant() { return {-1, int64_t(1 + random_.below(9))}; }
  Operand operand() { return random_.below(2) ? variable() : constant(); }
  Operand other(Operand than) {
    const Operand o = operand();
    return o.variable == than.variable ? constant() : o;
  }
  /// Products are by a constant only, so that results stay small.
  Expression expression() {
    const Operand left = variable();
    const char op = "+-+-*"[random_.below(5)];
    return {left, op, op == '*' ? constant() : operand()};
  }

  void add() {
    const Operand low = variable();
    Statement s{random_.below(3) == 0, false, low, other(low), 0, expression()};
    s.returns = s.conditional && random_.below(2);
    if (s.returns) {
    } else if (s.conditional || random_.below(2)) {
      s.target = int(random_.below(names_.size()));  // conditional: a name that has a value either way
    } else {
      define();
      s.target = int(names_.size()) - 1;
    }
    body_.push_back(s);
  }

  std::string show(Operand o) const {
    return o.variable >= 0 ? names_[size_t(o.variable)] : std::to_string(o.constant);
  }

  int64_t run(int64_t a, int64_t b) const {
    std::vector<int64_t> value(names_.size());
    value[0] = a;
    value[1] = b;
    const auto of = [&](Operand o) { return o.variable >= 0 ? value[size_t(o.variable)] : o.constant; };
    for (const Statement& s : body_) {
      if (s.conditional && of(s.low) <= of(s.high)) continue;
      const int64_t result = apply(of(s.value.left), s.value.op, of(s.value.right));
      if (s.returns) return result;
      value[size_t(s.target)] = result;
    }
    return 0;  // not reached: the last statement returns
  }

  Random& random_;
  std::string function_;
  Strings names_;
  std::vector<Statement> body_;
};

}  // namespace

std::string code_document(Random& random) {
  const size_t length = 220 + size_t(random.below(420));
  std::string out;
  while (out.size() < length) {
    const Program program(random);
    out += program.source() + "\n";
    for (uint64_t i = 0, n = 1 + random.below(3); i < n; ++i) {
      const auto a = int64_t(random.below(10)), b = int64_t(random.below(10));
      out += program.call(a, b);
    }
    out += "\n";
  }
  return out;
}

}  // namespace agon
