agon_find(fmt libfmt-dev)
