"""Compress: the methods of params.yaml's ``factorize``, in order, then recovery -> artifacts/factorize."""

from slimline.stage import compression, run

if __name__ == "__main__":
    run("factorize", compression)
