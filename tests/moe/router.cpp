#include "moe/router.h"

#include <doctest/doctest.h>

using namespace agon;

TEST_CASE("router: strategies by name") {
  CHECK(routers().contains("token_choice"));
  CHECK(make_router_options("token_choice")->experts_per_token() == 2);
  CHECK_THROWS_WITH_AS(make_router_options("tokenchoice"), doctest::Contains("\"tokenchoice\"; known are"), UserError);
  CHECK_THROWS_WITH_AS(make_router_options(""), doctest::Contains("token_choice"), UserError);
  const RouterOptionsFactory make = routers().at("token_choice");
  CHECK_THROWS_WITH_AS(RegisterRouter("token_choice", make), doctest::Contains("two routers are called token_choice"),
                       Error);
}
