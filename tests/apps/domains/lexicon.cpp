#include "apps/domains/lexicon.h"

#include <doctest/doctest.h>

#include <map>
#include <set>

using namespace agon;

TEST_CASE("lexicon: no form belongs to two lists") {
  const Lexicon& l = lexicon();
  std::map<std::string, std::string> of;
  const auto put = [&](const std::string& form, const std::string& list) {
    INFO(form);
    CHECK(of.emplace(form, list).second);
    CHECK(form.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string::npos);
  };
  for (const Noun& n : l.nouns) put(n.singular, "noun"), put(n.plural, "noun");
  for (const auto* list : {&l.transitive, &l.intransitive, &l.speech})
    for (const Verb& v : *list) put(v.base, "verb"), put(v.singular, "verb"), put(v.past, "verb");
  for (const auto& w : l.adjectives) put(w, "adjective");
  for (const auto& w : l.adverbs) put(w, "adverb");
  for (const auto& w : l.prepositions) put(w, "preposition");
  for (const auto& w : l.places) put(w, "place");
  for (const Name& n : l.names) put(n.text, "name");
  for (const char* w :
       {"the",     "a",       "an",      "this",       "every",   "each",     "another", "some", "these", "many",
        "several", "two",     "three",   "most",       "few",     "seven",    "its",     "his",  "her",   "their",
        "itself",  "himself", "herself", "themselves", "he",      "she",      "is",      "are",  "was",   "were",
        "do",      "does",    "did",     "have",       "has",     "had",      "not",     "and",  "but",   "that",
        "who",     "there",   "in",      "when",       "because", "although", "while",   "if"})
    put(w, "function word");
  CHECK(l.nouns.size() > 1200);
  CHECK(l.transitive.size() > 250);
}

TEST_CASE("lexicon: forms are spelled right") {
  std::map<std::string, std::string> plural;
  for (const Noun& n : lexicon().nouns) plural[n.singular] = n.plural;
  CHECK(plural["library"] == "libraries");
  CHECK(plural["key"] == "keys");
  CHECK(plural["witness"] == "witnesses");
  CHECK(plural["bench"] == "benches");
  CHECK(plural["shelf"] == "shelves");
  CHECK(plural["man"] == "men");
  CHECK(plural["lampkeeper"] == "lampkeepers");
  std::map<std::string, Verb> verbs;
  for (const Verb& v : lexicon().transitive) verbs[v.base] = v;
  CHECK(verbs["carry"].singular == "carries");
  CHECK(verbs["carry"].past == "carried");
  CHECK(verbs["destroy"].singular == "destroys");
  CHECK(verbs["watch"].singular == "watches");
  CHECK(verbs["rescue"].past == "rescued");
  CHECK(verbs["overload"].past == "overloaded");
}
