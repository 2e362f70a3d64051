#include "apps/domains/lexicon.h"

#include <algorithm>
#include <set>
#include <sstream>
#include <string_view>

#include "core/random.h"

namespace agon {

namespace {

using Strings = std::vector<std::string>;

Strings words(const char* list) {
  std::istringstream in(list);
  Strings out;
  for (std::string w; in >> w;) out.push_back(w);
  return out;
}

const char* const kThings =
    "apple arrow basket bell bench boat book bottle bowl bridge brick broom bucket cabin cable camera candle canvas "
    "carpet castle cellar chair chapel chart chimney clock cloud coat coin column compass corner cottage cup curtain "
    "desk diamond door drawer dress engine fence field flag flower forest fountain garden gate glove guitar hammer "
    "harbor hat hill island jacket jewel kettle key ladder lake lamp lantern letter mirror mountain needle nest novel "
    "oar orchard oven painting palace paper parcel path pencil piano picture pillow pipe pistol pond portrait pot "
    "pump puzzle raft ribbon ring river road roof rope sail scarf shelf shirt shovel shoe spoon stable statue stove "
    "street table tent ticket tower tractor treasure tree trumpet tunnel umbrella valley vase vessel violin wagon "
    "wall wallet window wing temple theory novelty remedy melody library diary";
const char* const kPeople =
    "actor artist author baker banker barber boy builder butcher captain carpenter clerk cousin dancer daughter "
    "dentist doctor driver editor emperor farmer fisher friend gardener general girl grocer hunter inspector judge "
    "king lawyer leader librarian merchant miller minister neighbor nephew niece nurse officer painter pilot plumber "
    "poet priest prince prisoner professor queen sailor scholar sculptor sergeant servant singer sister soldier "
    "student surgeon tailor teacher thief tutor uncle visitor waiter widow witness writer";
const char* const kIrregular =  // singular plural, those ending in * are people
    "man* men woman* women child* children wolf wolves knife knives leaf leaves mouse mice goose geese ox oxen tooth "
    "teeth half halves";
const char* const kFirst =
    "lamp stone water fire wood corn glass iron salt wind river silver garden paper cloth copper bread storm horse "
    "bird snow moon sea tin coal wool honey leather marble bone feather sand timber cotton pearl amber cedar barley "
    "mill ship";
const char* const kPersonSecond = "keeper maker carrier worker seller finder mender cutter weaver trader hauler smith";
const char* const kThingSecond =
    "house yard wheel box tray room cart barrel crate stand hook frame chest bag board mark trap cage rack vault";

const char* const kTransitive =
    "admire follow carry remember describe ignore protect repair collect deliver examine gather consider discover "
    "avoid blame borrow accept appreciate bother chase compare contain create cultivate destroy disturb embrace "
    "encourage enjoy explain explore finish frighten furnish greet identify improve inspect invite join criticize "
    "measure mention neglect observe obtain offer organize polish possess praise preserve prevent produce pursue "
    "receive recognize recommend reject remove require rescue resemble respect reveal reward satisfy search serve "
    "soothe suggest support surprise surround tolerate touch trust visit want warn watch welcome abandon adore amuse "
    "approach assist attack capture celebrate challenge confuse consult defend delay escort evaluate";
const char* const kPrefixes = "re over out under mis fore counter inter";
const char* const kStems =
    "paint load count weigh fill pack wash shape tune plant print name place sort stack turn view wire lock fold link "
    "form guard press heat float charge balance";
const char* const kIntransitive =
    "arrive laugh wait listen linger wander vanish appear smile hesitate whisper tremble shiver complain cough yawn "
    "rest stumble retire sigh snore struggle remain emerge cheer differ fail flourish grumble hurry pause perish "
    "prosper rejoice relax retreat roam scream survive suffer tumble wither depart";
const char* const kSpeech =
    "claim insist reply suspect declare announce report believe assume argue conclude predict imagine guess";

const char* const kAdjectives =
    "old young heavy light bright dark quiet loud small large narrow wide clean dirty empty full rich poor warm cold "
    "gentle rough smooth sharp dull sweet bitter sour fresh stale soft hard early late modern ancient simple complex "
    "famous obscure honest clever foolish brave timid calm nervous proud humble lazy busy eager idle kind cruel "
    "polite rude patient careful careless cheerful gloomy lively silent solid hollow thick thin straight crooked "
    "steep shallow deep distant nearby foreign native common rare precious cheap costly golden wooden rusty dusty "
    "muddy shiny faded broken perfect strange familiar secret public private royal rural grand plain fragile sturdy "
    "slender bulky round square crimson scarlet violet indigo green yellow orange purple grey white black blue red";
const char* const kAdverbs =
    "quietly slowly often rarely gladly badly boldly calmly carefully certainly clearly daily eagerly easily evenly "
    "fairly firmly gently greatly happily hardly honestly kindly lately lightly loosely loudly mostly nearly neatly "
    "nightly openly oddly partly patiently politely promptly proudly quickly readily really secretly seldom sharply "
    "simply sometimes soon strictly suddenly swiftly together tonight truly usually warmly weekly wisely yearly";
const char* const kPrepositions =
    "near behind above below beside beyond under inside across around against with without from";
const char* const kPlaceEnds = "ford ton mere holm wick bury stead dale haven gate combe thorpe";

bool ends_with_any(const std::string& w, const char* list) {
  for (const std::string& e : words(list))
    if (w.ends_with(e)) return true;
  return false;
}

bool ends_consonant_y(const std::string& w) {
  return w.ends_with('y') && std::string_view("aeiou").find(w[w.size() - 2]) == std::string_view::npos;
}

std::string plus_s(const std::string& w) {
  if (ends_consonant_y(w)) return w.substr(0, w.size() - 1) + "ies";
  return w + (ends_with_any(w, "s sh ch x z") ? "es" : "s");
}

std::string plus_ed(const std::string& w) {
  if (ends_consonant_y(w)) return w.substr(0, w.size() - 1) + "ied";
  return w + (w.ends_with('e') ? "d" : "ed");
}

Noun regular_noun(const std::string& w, bool person) {
  if (w.ends_with("shelf") || w.ends_with("thief")) return {w, w.substr(0, w.size() - 1) + "ves", person};
  return {w, plus_s(w), person};
}

std::vector<Verb> verbs(const Strings& bases) {
  std::vector<Verb> out;
  for (const std::string& b : bases) out.push_back({b, plus_s(b), plus_ed(b)});
  return out;
}

template <class T>
void shuffle(std::vector<T>& v, size_t from, Random& random) {
  for (size_t i = v.size(); i > from + 1; --i) std::swap(v[i - 1], v[from + size_t(random.below(i - from))]);
}

std::string made_up(Random& random, int syllables) {
  static const Strings onsets = words("b br c d dr f g gr h j k l m n p r s st t th tr v w"),
                       vowels = words("a e i o u ae ia ei o a e i");
  std::string w;
  for (int i = 0; i < syllables; ++i) {
    w += onsets[random.below(onsets.size())];
    w += vowels[random.below(vowels.size())];
  }
  return w;
}

std::string capital(std::string w) {
  w[0] = char(w[0] - 'a' + 'A');
  return w;
}

Lexicon make() {
  Lexicon l;
  Random random({20240901, 1});
  for (const std::string& w : words(kThings)) l.nouns.push_back(regular_noun(w, false));
  for (const std::string& w : words(kPeople)) l.nouns.push_back(regular_noun(w, true));
  const Strings irregular = words(kIrregular);
  for (size_t i = 0; i < irregular.size(); i += 2) {
    const bool person = irregular[i].ends_with('*');
    l.nouns.push_back({irregular[i].substr(0, irregular[i].size() - (person ? 1 : 0)), irregular[i + 1], person});
  }
  shuffle(l.nouns, 0, random);
  const size_t plain = l.nouns.size();
  for (const std::string& first : words(kFirst)) {
    for (const std::string& second : words(kPersonSecond)) l.nouns.push_back(regular_noun(first + second, true));
    for (const std::string& second : words(kThingSecond)) l.nouns.push_back(regular_noun(first + second, false));
  }
  shuffle(l.nouns, plain, random);

  l.transitive = verbs(words(kTransitive));
  const size_t simple = l.transitive.size();
  Strings tail;
  for (const std::string& prefix : words(kPrefixes))
    for (const std::string& stem : words(kStems)) tail.push_back(prefix + stem);
  for (Verb& v : verbs(tail)) l.transitive.push_back(std::move(v));
  shuffle(l.transitive, simple, random);
  l.intransitive = verbs(words(kIntransitive));
  l.speech = verbs(words(kSpeech));
  l.speech.push_back({"say", "says", "said"});
  l.speech.push_back({"think", "thinks", "thought"});

  l.adjectives = words(kAdjectives);
  l.adverbs = words(kAdverbs);
  l.prepositions = words(kPrepositions);
  shuffle(l.adjectives, 0, random);
  shuffle(l.adverbs, 0, random);

  std::set<std::string> taken;
  const Strings ends = words(kPlaceEnds), male = words("n r s ld rt m nd th k"), female = words("a na lle ra sa nne");
  while (l.names.size() < 500) {
    const bool is_female = random.below(2) == 0;
    const Strings& end = is_female ? female : male;
    std::string w = capital(made_up(random, 1 + int(random.below(2))));
    w += end[random.below(end.size())];
    if (w.size() >= 4 && taken.insert(w).second) l.names.push_back({w, is_female});
  }
  while (l.places.size() < 300) {
    std::string w = capital(made_up(random, 1 + int(random.below(2))));
    w += ends[random.below(ends.size())];
    if (taken.insert(w).second) l.places.push_back(w);
  }
  return l;
}

}  // namespace

const Lexicon& lexicon() {
  static const Lexicon made = make();
  return made;
}

}  // namespace agon
