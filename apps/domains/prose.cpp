#include <array>

#include "apps/domains.h"
#include "apps/domains/lexicon.h"

// Stories in a small English. What must agree: verbs with the head of their subject, across prepositional phrases and
// nested relative clauses; every verb of a story in tense; pronouns and reflexives with whom they stand for; which
// words a story uses with its topic; and what a verb's object is likely to be with the verb.

namespace agon {

namespace {

constexpr size_t kTopics = 16;

/// Draws 0 .. n - 1, rank r about as often as 1 / (r + 2) (Zipf's law): an octave of r + 2, then one of its numbers. In
/// integers, so that every machine draws the same.
size_t zipf(Random& random, size_t n) {
  size_t octaves = 1;
  while ((size_t(2) << octaves) < n + 2) ++octaves;
  for (;;) {
    const size_t low = size_t(2) << random.below(octaves), r = low + size_t(random.below(low)) - 2;
    if (r < n) return r;
  }
}

uint64_t scramble(uint64_t a, uint64_t b) {
  uint64_t x = (a + 1) * 0x9e3779b97f4a7c15u ^ (b + 1) * 0xc2b2ae3d27d4eb4fu;
  x = (x ^ (x >> 31)) * 0x94d049bb133111ebu;
  return x ^ (x >> 29);
}

enum class Kind { it, he, she, they };

class Story {
 public:
  explicit Story(Random& random) : random_(random), past_(chance(0.4)), topic_(size_t(random.below(kTopics))) {
    for (size_t& c : cast_) c = zipf(random_, words_.names.size());
  }

  std::string tell(size_t length) {
    std::string story;
    while (story.size() < length) {
      sentence_.clear();
      sentence();
      std::string line;
      for (const std::string& w : sentence_) line += (line.empty() || w == "," ? "" : " ") + w;
      if (line[0] >= 'a') line[0] = char(line[0] - 'a' + 'A');
      story += (story.empty() ? "" : " ") + line + ".";
    }
    return story + "\n";
  }

 private:
  bool chance(double p) { return random_.uniform() < p; }
  void say(std::string w) { sentence_.push_back(std::move(w)); }
  const std::string& any(const std::vector<std::string>& list) { return list[zipf(random_, list.size())]; }

  void sentence() {
    if (protagonist_ >= 0 && chance(0.4)) {
      const bool female = words_.names[size_t(protagonist_)].female;
      say(female ? "she" : "he");
      predicate(female ? Kind::she : Kind::he, true, true);
      return;  // the protagonist stays
    }
    const double u = random_.uniform();
    if (u < 0.08) {
      there();
    } else if (u < 0.2) {
      static const std::vector<std::string> openers{"when", "because", "although", "while", "before", "after", "if"};
      say(any(openers));
      clause(false);
      say(",");
      clause(false);
    } else if (u < 0.3) {
      clause(false);
      say(",");
      say(chance(0.6) ? "and" : "but");
      clause(false);
    } else {
      clause(true);
      return;
    }
    protagonist_ = -1;
  }

  void clause(bool main) {
    protagonist_ = -1;
    bool person = false;
    const Kind subject = noun_phrase(0, Kind::it, false, &person, main);
    predicate(subject, person, main);
  }

  void there() {
    const bool plural = chance(0.5);
    say("there");
    say(be(plural));
    noun(plural, 2, Kind::it, false, nullptr);
    say("in");
    say(any(words_.places));
  }

  void predicate(Kind subject, bool person, bool main) {
    const bool plural = subject == Kind::they;
    const double u = random_.uniform();
    if (u < 0.15 && person && main) {
      group(words_.speech[zipf(random_, words_.speech.size())], plural);
      say("that");
      const long keep = protagonist_;
      clause(false);
      protagonist_ = keep;
    } else if (u < 0.6) {
      const size_t verb = transitive();
      group(words_.transitive[verb], plural);
      const bool genderless = person && subject == Kind::it;  // "the actor": neither himself nor itself
      if (chance(0.07) && !genderless) {
        static const char* const reflexive[] = {"itself", "himself", "herself", "themselves"};
        say(reflexive[size_t(subject)]);
      } else {
        object(verb, subject, !genderless, 1);
      }
      if (chance(0.15)) say(any(words_.adverbs));
    } else if (u < 0.8) {
      group(words_.intransitive[zipf(random_, words_.intransitive.size())], plural);
      if (chance(0.35)) say(any(words_.adverbs));
      if (chance(0.3)) {
        say(chance(0.7) ? "in" : "near");
        say(any(words_.places));
      }
    } else {
      say(be(plural));
      if (chance(0.15)) say("not");
      say(adjective());
      if (chance(0.2)) {
        say("and");
        say(adjective());
      }
    }
  }

  std::string be(bool plural) { return past_ ? (plural ? "were" : "was") : plural ? "are" : "is"; }

  /// The verb in number and tense, sometimes with an auxiliary.
  void group(const Verb& verb, bool plural) {
    const double u = random_.uniform();
    if (u < 0.1) {
      say(past_ ? "did" : plural ? "do" : "does");
      say("not");
      say(verb.base);
    } else if (u < 0.2) {
      say(past_ ? "had" : plural ? "have" : "has");
      say(verb.past);
    } else {
      say(past_ ? verb.past : plural ? verb.base : verb.singular);
    }
  }

  /// Each topic has its own order of the verbs.
  size_t transitive() {
    const size_t n = words_.transitive.size(), rank = zipf(random_, n);
    return rank % 2 ? (rank * 31 + topic_ * 57) % n : rank;
  }

  const std::string& adjective() {
    const size_t n = words_.adjectives.size(), rank = zipf(random_, n);
    return words_.adjectives[rank % 2 ? (rank * 17 + topic_ * 41) % n : rank];
  }

  /// Mostly a word of the topic, else any.
  size_t any_noun() {
    const size_t n = words_.nouns.size();
    return chance(0.75) ? zipf(random_, n / kTopics) * kTopics + topic_ : zipf(random_, n);
  }

  void object(size_t verb, Kind owner, bool owned, int depth) {
    const size_t n = words_.nouns.size();
    favourite_ = chance(0.5) ? long(scramble(verb, random_.below(4)) % (n / 4)) : -1;
    bool person = false;
    noun_phrase(depth, owner, owned, &person, false);
    favourite_ = -1;
  }

  Kind noun_phrase(int depth, Kind owner, bool owned, bool* person, bool main) {
    if (favourite_ < 0 && chance(depth == 0 ? 0.4 : 0.15)) {
      *person = true;
      const size_t a = cast_[random_.below(cast_.size())];
      const size_t b = cast_[random_.below(cast_.size())];
      say(words_.names[a].text);
      if (a != b && chance(0.2)) {
        say("and");
        say(words_.names[b].text);
        return Kind::they;
      }
      if (main) protagonist_ = long(a);
      return words_.names[a].female ? Kind::she : Kind::he;
    }
    const bool plural = chance(0.45);
    noun(plural, depth, owner, owned, person);
    return plural ? Kind::they : Kind::it;
  }

  /// Determiner, adjectives, noun; up to depth 1 with what may stand between a noun and its verb.
  void noun(bool plural, int depth, Kind owner, bool owned, bool* person) {
    static const std::vector<std::string> one{"the", "a", "this", "every", "each", "another"};
    static const std::vector<std::string> many{"the", "some",  "these", "many", "several",
                                               "two", "three", "most",  "few",  "seven"};
    static const char* const possessive[] = {"its", "his", "her", "their"};
    const Noun& word = words_.nouns[favourite_ >= 0 ? size_t(favourite_) : any_noun()];
    favourite_ = -1;
    const size_t at = sentence_.size();
    say(owned && chance(0.15) ? possessive[size_t(owner)] : any(plural ? many : one));
    while (sentence_.size() < at + 3 && chance(0.3)) say(adjective());
    say(plural ? word.plural : word.singular);
    if (sentence_[at] == "a" && std::string_view("aeiou").find(sentence_[at + 1][0]) != std::string_view::npos)
      sentence_[at] = "an";
    if (person) *person = word.person;
    if (depth >= 2) return;
    if (chance(0.2)) {
      say(any(words_.prepositions));
      noun(chance(0.5), 2, Kind::it, false, nullptr);
    } else if (chance(0.25)) {
      relative(plural, word.person, depth);
    }
  }

  void relative(bool plural, bool person, int depth) {
    say(person ? "who" : "that");
    const Kind head = plural ? Kind::they : Kind::it;
    const double u = random_.uniform();
    if (u < 0.15) {
      group(words_.intransitive[zipf(random_, words_.intransitive.size())], plural);
    } else if (u < 0.55) {
      const size_t verb = transitive();
      group(words_.transitive[verb], plural);
      object(verb, head, plural || !person, 2);
    } else {
      bool ignored = false;
      const Kind subject = noun_phrase(depth + 1, Kind::it, false, &ignored, false);
      group(words_.transitive[transitive()], subject == Kind::they);
    }
  }

  const Lexicon& words_ = lexicon();
  Random& random_;
  bool past_;
  size_t topic_;
  std::array<size_t, 3> cast_{};
  std::vector<std::string> sentence_;
  long protagonist_ = -1;  // the name that "he" or "she" stands for; -1: nobody
  long favourite_ = -1;    // a noun the verb asks for; -1: none
};

}  // namespace

std::string prose_document(Random& random) {
  Story story(random);
  return story.tell(220 + size_t(random.below(420)));
}

}  // namespace agon
