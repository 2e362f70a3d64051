agon_find(Eigen3 libeigen3-dev NO_MODULE)
