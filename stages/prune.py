"""Compress: the methods of params.yaml's ``prune``, in order, then recovery -> artifacts/prune."""

from slimline.stage import compression, run

if __name__ == "__main__":
    run("prune", compression)
