agon_find(CLI11 libcli11-dev)
