#pragma once
#include <string>
#include <vector>

namespace agon {

struct Noun {
  std::string singular, plural;
  bool person;
};

struct Verb {
  std::string base, singular, past;  // "carry" (also the plural), "carries", "carried" (also the participle)
};

struct Name {
  std::string text;
  bool female;
};

/// The words of the prose grammar. No form belongs to two lists, so that a sentence can be parsed word by word.
struct Lexicon {
  std::vector<Noun> nouns;
  std::vector<Verb> transitive, intransitive, speech;
  std::vector<std::string> adjectives, adverbs, prepositions, places;
  std::vector<Name> names;
};

/// Made once: about 200 nouns, 150 verbs and 130 adjectives spelled out, and a long tail of compounds ("lampkeeper",
/// "overload") and of names put together from syllables.
const Lexicon& lexicon();

}  // namespace agon
