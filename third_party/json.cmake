agon_find(nlohmann_json nlohmann-json3-dev)
