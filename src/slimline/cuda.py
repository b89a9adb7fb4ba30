"""The CUDA driver, as much of it as running an engine takes: which GPU there is, memory, a stream. Needs no torch.

Reached by ctypes: the driver comes with the GPU, so no package has to.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimline.errors import ArtifactError

NON_BLOCKING = 1


@cache
def _driver() -> ctypes.CDLL | None:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


@cache
def capability() -> int | None:
    """Return the compute capability of the first GPU (86 for 8.6), or None where the driver shows none."""
    driver = _driver()
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    for value, attribute in ((major, 75), (minor, 76)):
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return 10 * major.value + minor.value


class Gpu:
    """The first GPU: its context, one stream, and buffers that grow. Raises ArtifactError where there is none."""

    def __init__(self) -> None:
        driver = _driver()
        if driver is None or capability() is None:
            raise ArtifactError("no GPU: the CUDA driver (libcuda.so.1) shows none")
        self._driver = driver
        self._device, self._context, self._stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._buffers: dict[str, tuple[ctypes.c_uint64, int]] = {}
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(self._stream), NON_BLOCKING)

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return self._stream.value or 0

    def enter(self) -> None:
        """Make the GPU's context the calling thread's; it is per thread."""
        self._call("cuCtxSetCurrent", self._context)

    def buffer(self, name: str, size: int) -> int:
        """Return the address of a buffer of at least ``size`` bytes; one of the same name before it may go."""
        held = self._buffers.get(name)
        if held is None or held[1] < size:
            if held is not None:
                self._call("cuMemFree_v2", held[0])
                del self._buffers[name]
            pointer = ctypes.c_uint64()
            self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
            held = self._buffers[name] = pointer, size
        return held[0].value

    def send(self, array: NDArray[Any], address: int) -> None:
        """Copy a C-contiguous array to the GPU."""
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), array.ctypes.data_as(ctypes.c_void_p),
                   ctypes.c_size_t(array.nbytes))  # fmt: skip

    def fetch(self, address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return the array at ``address``, after what the stream was given is done."""
        self._call("cuStreamSynchronize", self._stream)
        array = np.empty(shape, dtype)
        self._call("cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(address),
                   ctypes.c_size_t(array.nbytes))  # fmt: skip
        return array

    def close(self) -> None:
        """Give back buffers, stream and context."""
        self.enter()
        for pointer, _ in self._buffers.values():
            self._call("cuMemFree_v2", pointer)
        self._buffers.clear()
        self._call("cuStreamDestroy_v2", self._stream)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, function: str, *arguments: Any) -> None:
        if code := getattr(self._driver, function)(*arguments):
            raise ArtifactError(f"CUDA: {function} fails with code {code}")
