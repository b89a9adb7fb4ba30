"""Low-rank factorization: which ranks, and factors in a layer's place."""
