"""The attention kernels through libchorus_kernels_abi.so: gpu_kernels_abi.h in ctypes."""

import ctypes

ARRAYS = ("own_tiles", "own_spans", "fused_tiles", "fused_spans", "slot_table")


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("num_heads", "num_kv_heads", "head_dim", "is_float16", "kind")]


class _Request(ctypes.Structure):
    _fields_ = [("prefix_length", ctypes.c_int32), ("num_segments", ctypes.c_int32),
                ("segment_lengths", ctypes.POINTER(ctypes.c_int32)), ("suffix_length", ctypes.c_int32),
                ("num_generated", ctypes.c_int32), ("first_row", ctypes.c_int32)]


class _Array(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("num_bytes", ctypes.c_int64)]


class _Buffers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "log_sum_exp", "workspace")]
    _fields_ += [("num_slots", ctypes.c_int64), ("arrays", ctypes.c_void_p * len(ARRAYS))]


class KernelError(Exception):
    """What the library says; its text is meant to be read."""


class Kernels:
    """The library; `kinds` are the names of its kernels for rows of segments."""

    def __init__(self, path):
        self._library = library = ctypes.CDLL(str(path))
        library.ChorusKindName.restype = library.ChorusLastError.restype = ctypes.c_char_p
        library.ChorusPlanCreate.restype = ctypes.c_void_p
        library.ChorusPlanArray.restype = _Array
        library.ChorusPlanArray.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        library.ChorusPlanDestroy.argtypes = [ctypes.c_void_p]
        library.ChorusAttention.argtypes = [ctypes.c_void_p, ctypes.POINTER(_Buffers), ctypes.c_void_p]
        for name in ("ChorusPlanRows", "ChorusPlanTokens", "ChorusPlanPairs", "ChorusWorkspaceFloats"):
            function = getattr(library, name)
            function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_void_p]
        self.kinds = [library.ChorusKindName(kind).decode() for kind in range(library.ChorusKindCount())]

    def error(self):
        return KernelError(self._library.ChorusLastError().decode())

    def plan(self, heads, requests, kind, slots=None):
        """`heads`: num_heads, num_kv_heads, head_dim. `slots`: of every token, in order; None: 0, 1, ..."""
        return Plan(self, self._library, heads, requests, self.kinds.index(kind), slots)


class Plan:
    """A step that was planned: its sizes, and its arrays as bytes."""

    def __init__(self, kernels, library, heads, requests, kind, slots):
        self._kernels, self._library = kernels, library
        shape = _Shape(*heads, 0, kind)
        lengths = [(ctypes.c_int32 * len(request.segments))(*request.segments) for request in requests]
        array = (_Request * len(requests))(*(
            _Request(request.prefix, len(request.segments), ctypes.cast(segments, ctypes.POINTER(ctypes.c_int32)),
                     request.suffix, request.generated, request.first_row)
            for request, segments in zip(requests, lengths, strict=True)))
        table = None if slots is None else (ctypes.c_int32 * len(slots))(*slots)
        self._plan = library.ChorusPlanCreate(ctypes.byref(shape), array, len(requests), table)
        if not self._plan:
            raise kernels.error()
        self.num_rows = library.ChorusPlanRows(self._plan)
        self.num_tokens = library.ChorusPlanTokens(self._plan)
        self.num_pairs = library.ChorusPlanPairs(self._plan)
        self.workspace_floats = library.ChorusWorkspaceFloats(self._plan)
        self.arrays = {}
        for index, name in enumerate(ARRAYS):
            found = library.ChorusPlanArray(self._plan, index)
            self.arrays[name] = ctypes.string_at(found.data, found.num_bytes) if found.num_bytes else b""

    def launcher(self, pointers, num_slots, arrays):
        """A function of a stream that starts the kernels. `pointers` and `arrays`: name -> device address."""
        buffers = _Buffers(**pointers, num_slots=num_slots)
        for index, name in enumerate(ARRAYS):
            buffers.arrays[index] = arrays[name]

        def launch(stream=None):
            if self._library.ChorusAttention(self._plan, ctypes.byref(buffers), stream) != 0:
                raise self._kernels.error()
        return launch

    def __del__(self):
        if getattr(self, "_plan", None):
            self._library.ChorusPlanDestroy(self._plan)
