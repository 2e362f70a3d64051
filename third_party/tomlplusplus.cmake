agon_find(tomlplusplus libtomlplusplus-dev)
