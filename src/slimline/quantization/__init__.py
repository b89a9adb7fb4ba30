"""Quantization: fake-quantizers, their ranges and widths, and the plan that the quantize methods share."""
