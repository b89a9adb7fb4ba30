"""Triton model repositories, written from releases. Needs no torch; what runs inside Triton is ``backend``."""
