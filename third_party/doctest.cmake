agon_find(doctest doctest-dev)
