#include <doctest/doctest.h>

#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "apps/domains.h"
#include "apps/domains/lexicon.h"

using namespace agon;

namespace {

enum class Kind { it, he, she, they };
enum class Class { transitive, intransitive, speech };
enum class Form { base, singular, past };

using Set = std::set<std::string>;
const Set kOne{"a", "an", "this", "every", "each", "another"};
const Set kMany{"some", "these", "many", "several", "two", "three", "most", "few", "seven"};
const Set kOpeners{"when", "because", "although", "while", "before", "after", "if"};
const std::map<std::string, Kind> kPossessive{
    {"its", Kind::it}, {"his", Kind::he}, {"her", Kind::she}, {"their", Kind::they}};
const std::map<std::string, Kind> kReflexive{
    {"itself", Kind::it}, {"himself", Kind::he}, {"herself", Kind::she}, {"themselves", Kind::they}};

/// What a form can be.
struct Words {
  std::map<std::string, bool> noun;  // plural?
  std::map<std::string, std::pair<Class, Form>> verb;
  std::map<std::string, bool> name;  // female?
  Set adjectives, adverbs, prepositions, places, people;

  Words() {
    const Lexicon& l = lexicon();
    for (const Noun& n : l.nouns) {
      noun[n.singular] = false, noun[n.plural] = true;
      if (n.person) people.insert({n.singular, n.plural});
    }
    for (auto [c, list] : {std::pair{Class::transitive, &l.transitive},
                           {Class::intransitive, &l.intransitive},
                           {Class::speech, &l.speech}})
      for (const Verb& v : *list)
        verb[v.base] = {c, Form::base}, verb[v.singular] = {c, Form::singular}, verb[v.past] = {c, Form::past};
    for (const Name& n : l.names) name[n.text] = n.female;
    adjectives = {l.adjectives.begin(), l.adjectives.end()};
    adverbs = {l.adverbs.begin(), l.adverbs.end()};
    prepositions = {l.prepositions.begin(), l.prepositions.end()};
    places = {l.places.begin(), l.places.end()};
  }
};

/// Parses a story by recursive descent and checks everything that must agree.
class Reader {
 public:
  void read(const std::string& story) {
    tense_ = protagonist_ = -1;
    std::istringstream in(story);
    sentence_.clear();
    for (std::string w; in >> w;) {
      const char last = w.back();
      if (last == ',' || last == '.') w.pop_back();
      if (sentence_.empty() && !words_.name.count(w)) w[0] = char(std::tolower(w[0]));
      sentence_.push_back(w);
      if (last == ',') sentence_.push_back(",");
      if (last == '.') {
        sentence();
        sentence_.clear();
      }
    }
    CHECK(sentence_.empty());
  }
  int verbs = 0, attractors = 0, nested = 0, pronouns = 0, reflexives = 0, possessives = 0;

 private:
  struct Subject {
    Kind kind = Kind::it;
    bool name = false, person = false;
    bool plural() const { return kind == Kind::they; }
  };

  const std::string& word() const {
    static const std::string none;
    return at_ < sentence_.size() ? sentence_[at_] : none;
  }
  std::string next() {
    REQUIRE(at_ < sentence_.size());
    return sentence_[at_++];
  }
  bool take(const std::string& w) { return word() == w && (++at_, true); }

  void sentence() {
    at_ = 0;
    std::string whole;
    for (const std::string& w : sentence_) whole += w + " ";
    CAPTURE(whole);
    int protagonist = -1;
    if (take("there")) {
      const std::string be = next();
      const Subject s = noun_phrase(nullptr);
      check_be(be, s.plural());
      CHECK(take("in"));
      CHECK(words_.places.count(next()) == 1);
    } else if (kOpeners.count(word())) {
      next();
      clause();
      CHECK(take(","));
      clause();
    } else {
      const Subject s = clause();
      if (s.name && !s.plural()) protagonist = int(s.kind);
      if (take(",")) {
        CHECK((take("and") || take("but")));
        clause();
        protagonist = -1;
      }
    }
    CHECK(at_ == sentence_.size());
    protagonist_ = protagonist;
  }

  Subject clause() {
    const Subject s = noun_phrase(nullptr);
    predicate(s);
    return s;
  }

  void predicate(const Subject& s) {
    if (Set{"is", "are", "was", "were"}.count(word())) {
      check_be(next(), s.plural());
      take("not");
      do CHECK(words_.adjectives.count(next()) == 1);
      while (take("and"));
      return;
    }
    switch (group(s.plural())) {
      case Class::speech:
        CHECK(s.person);
        CHECK(take("that"));
        clause();
        break;
      case Class::transitive:
        if (kReflexive.count(word())) {
          CHECK(kReflexive.at(next()) == s.kind);
          ++reflexives;
        } else {
          noun_phrase(&s);
        }
        if (words_.adverbs.count(word())) next();
        break;
      case Class::intransitive:
        if (words_.adverbs.count(word())) next();
        if (take("in") || take("near")) CHECK(words_.places.count(next()) == 1);
    }
  }

  void check_tense(bool past) {
    if (tense_ < 0) tense_ = past;
    CHECK(bool(tense_) == past);
    ++verbs;
  }

  void check_be(const std::string& be, bool plural) {
    const bool past = be == "was" || be == "were";
    check_tense(past);
    CHECK((be == "are" || be == "were") == plural);
  }

  /// A verb with its auxiliary, for a subject of that number.
  Class group(bool plural) {
    const std::string first = next();
    CAPTURE(first);
    if (first == "do" || first == "does" || first == "did") {
      check_tense(first == "did");
      if (first != "did") CHECK((first == "do") == plural);
      CHECK(take("not"));
      return verb(next(), Form::base);
    }
    if (first == "have" || first == "has" || first == "had") {
      check_tense(first == "had");
      if (first != "had") CHECK((first == "have") == plural);
      return verb(next(), Form::past);
    }
    REQUIRE(words_.verb.count(first) == 1);
    const Form form = words_.verb.at(first).second;
    check_tense(form == Form::past);
    if (form != Form::past) CHECK((form == Form::base) == plural);
    return words_.verb.at(first).first;
  }

  Class verb(const std::string& w, Form form) {
    REQUIRE(words_.verb.count(w) == 1);
    CHECK(words_.verb.at(w).second == form);
    return words_.verb.at(w).first;
  }

  Subject noun_phrase(const Subject* owner) {
    if (word() == "he" || word() == "she") {
      const Kind kind = next() == "he" ? Kind::he : Kind::she;
      CHECK(protagonist_ == int(kind));
      ++pronouns;
      return {kind, true, true};
    }
    if (words_.name.count(word())) {
      const Kind kind = words_.name.at(next()) ? Kind::she : Kind::he;
      if (!take("and")) return {kind, true, true};
      CHECK(words_.name.count(next()) == 1);
      return {Kind::they, true, true};
    }
    const std::string determiner = next();
    CAPTURE(determiner);
    const std::string after = word();
    if (determiner == "a") CHECK(std::string("aeiou").find(after[0]) == std::string::npos);
    if (determiner == "an") CHECK(std::string("aeiou").find(after[0]) != std::string::npos);
    while (words_.adjectives.count(word())) next();
    const std::string noun = next();
    CAPTURE(noun);
    REQUIRE(words_.noun.count(noun) == 1);
    const bool plural = words_.noun.at(noun), person = words_.people.count(noun) == 1;
    if (kPossessive.count(determiner)) {
      REQUIRE(owner != nullptr);
      CHECK(kPossessive.at(determiner) == owner->kind);
      ++possessives;
    } else if (determiner != "the") {
      CHECK((plural ? kMany : kOne).count(determiner) == 1);
    }
    const Subject head{plural ? Kind::they : Kind::it, false, person};
    if (words_.prepositions.count(word())) {
      next();
      attractors += noun_phrase(nullptr).plural() != plural;
    } else if (word() == "who" || word() == "that") {
      CHECK((next() == "who") == person);
      relative(head);
    }
    return head;
  }

  void relative(const Subject& head) {
    ++nested;
    const Set auxiliaries{"do", "does", "did", "have", "has", "had"};
    if (words_.verb.count(word()) || auxiliaries.count(word())) {
      if (group(head.plural()) == Class::transitive) noun_phrase(&head);
    } else {
      CHECK(group(noun_phrase(nullptr).plural()) == Class::transitive);
    }
  }

  Words words_;
  std::vector<std::string> sentence_;
  size_t at_ = 0;
  int tense_ = -1, protagonist_ = -1;
};

}  // namespace

TEST_CASE("prose: subjects and verbs, pronouns and names, determiners and nouns, tenses agree") {
  Random random({15, 0});
  Reader reader;
  for (int i = 0; i < 400; ++i) reader.read(prose_document(random));
  CHECK(reader.verbs > 4000);
  CHECK(reader.attractors > 200);
  CHECK(reader.nested > 500);
  CHECK(reader.pronouns > 100);
  CHECK(reader.reflexives > 40);
  CHECK(reader.possessives > 100);
}
