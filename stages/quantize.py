"""Compress: the methods of params.yaml's ``quantize``, in order, then recovery -> artifacts/quantize."""

from slimline.stage import compression, run

if __name__ == "__main__":
    run("quantize", compression)
