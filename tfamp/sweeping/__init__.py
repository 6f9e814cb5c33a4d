"""A sweep: the matrix of cells, and the processes that train them. Needs no TensorFlow."""
