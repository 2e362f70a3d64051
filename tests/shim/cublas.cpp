// Stands in for ops/cuda/cublas.cu where there is no GPU.
