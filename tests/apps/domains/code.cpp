#include <doctest/doctest.h>

#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "apps/domains.h"

using namespace agon;

namespace {

/// Runs what a function's lines say, knowing nothing of how they were made.
class Interpreter {
 public:
  void define(const std::string& header) {
    std::istringstream in(header.substr(4));  // "name(a, b):"
    std::getline(in, name, '(');
    std::string first, second;
    std::getline(in, first, ',');
    in >> std::ws;
    std::getline(in, second, ')');
    arguments = {first, second};
    lines.clear();
  }

  int64_t call(int64_t a, int64_t b) const {
    std::map<std::string, int64_t> value{{arguments[0], a}, {arguments[1], b}};
    for (size_t i = 0; i < lines.size(); ++i) {
      std::istringstream in(lines[i]);
      std::string word, right;
      char op = 0;
      in >> word;
      if (word == "if") {
        std::string left;
        in >> left >> op >> right;
        right.pop_back();  // the colon
        if (!(operand(left, value) > operand(right, value))) ++i;
        continue;
      }
      if (word == "return") return expression(in, value);
      in >> op;
      const int64_t result = expression(in, value);
      value[word] = result;
    }
    FAIL("a function without return");
    return 0;
  }

  std::string name;
  std::vector<std::string> arguments, lines;

 private:
  static int64_t operand(const std::string& word, const std::map<std::string, int64_t>& value) {
    if (std::isdigit(word[0])) return std::stoll(word);
    REQUIRE_MESSAGE(value.count(word) == 1, word << " is used before it is defined");
    return value.at(word);
  }
  static int64_t expression(std::istringstream& in, const std::map<std::string, int64_t>& value) {
    std::string left, right;
    char op = 0;
    in >> left >> op >> right;
    const int64_t a = operand(left, value), b = operand(right, value);
    return op == '+' ? a + b : op == '-' ? a - b : a * b;
  }
};

}  // namespace

TEST_CASE("code: names are defined before use and results are true") {
  Random random({14, 0});
  size_t calls = 0;
  std::set<int64_t> results;
  for (int i = 0; i < 300; ++i) {
    std::istringstream lines(code_document(random));
    Interpreter program;
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("def ")) {
        program.define(line);
      } else if (line.starts_with("    ")) {
        program.lines.push_back(line);
      } else if (!line.empty()) {
        const size_t open = line.find('(', 6), comma = line.find(','), hash = line.find("# ");
        REQUIRE(line.starts_with("print(" + program.name + "("));
        const int64_t result = std::stoll(line.substr(hash + 2));
        CHECK(program.call(std::stoll(line.substr(open + 1)), std::stoll(line.substr(comma + 1))) == result);
        results.insert(result);
        ++calls;
      }
    }
  }
  CHECK(calls > 1000);
  CHECK(results.size() > 50);
}
