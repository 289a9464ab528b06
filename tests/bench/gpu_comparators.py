"""What the kernels are compared with, on the same numbers: PyTorch's SDPA with each of its back ends, over the
concatenated prompt (plainly causal: more work, another result) and with the segment mask as an explicit tensor;
FlexAttention with the same mask; variable-length flash attention over segments; FlashInfer. Each may be missing."""

import functools
import os

from gpu_report import first_line

# Few kernels are compiled: a pool of compilers would cost more than it saves, and outlive the program.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

MATH_LIMIT_BYTES = 8 << 30
# A mask of more than 2^31 elements is past what some back ends count in.
MASK_LIMIT_BYTES = 4 << 30
BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


class Contenders:
    """`run`: name -> function that returns the output [requests, heads, rows, head_dim]; `missing`: name -> why not.
    `begin(name)` is asked before anything is tried; `check_device(error)` is told what went wrong, and may raise."""

    def __init__(self, torch, begin, check_device):
        self.torch = torch
        self._begin, self._check_device = begin, check_device
        self.run, self.missing = {}, {}
        self.same_mask = set()  # those that compute what ours does

    def add(self, name, make, same_mask=False):
        """`make` returns the function; it runs once, here."""
        if not self._begin(name):
            self.missing[name] = "broke the device: see failures"
            return
        try:
            function = make()
            function()
            if self.torch.cuda.is_available():
                self.torch.cuda.synchronize()
        except Exception as error:  # noqa: BLE001 - a comparator may fail in any way of its own
            self.missing[name] = first_line(error)
            self._check_device(error)
            return
        self.run[name] = function
        if same_mask:
            self.same_mask.add(name)


def _grouped(q, k, v, function):
    """function(q, k, v, enable_gqa) with grouped heads where it takes them, else with keys repeated beforehand."""
    try:
        function(q, k, v, True)
    except Exception:  # noqa: BLE001
        groups = q.shape[1] // k.shape[1]
        wide_k, wide_v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        return functools.partial(function, q, wide_k, wide_v, False)
    return functools.partial(function, q, k, v, True)


def _sdpa(torch, backend, q, k, v, arguments):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def call(q, k, v, enable_gqa):
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=enable_gqa, **arguments)
    return _grouped(q, k, v, call)


def _add_backends(contenders, prefix, q, k, v, same_mask, **arguments):
    scores = 4 * q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    for backend in BACKENDS:
        name = f"{prefix} {backend}"
        if backend == "MATH" and scores > MATH_LIMIT_BYTES:
            contenders.missing[name] = f"its scores would take {scores >> 30} GiB"
            continue
        contenders.add(name, functools.partial(_sdpa, contenders.torch, backend, q, k, v, arguments), same_mask)


def _add_mask(contenders, request, q, k, v):
    torch = contenders.torch
    length = q.shape[2]
    if 3 * length * length > MASK_LIMIT_BYTES:
        contenders.missing["SDPA mask"] = f"mask and bias would take {3 * length * length >> 30} GiB"
        return
    owner = torch.from_numpy(request.owners()).to(q.device)
    index = torch.arange(length, device=q.device)
    mask = (index[None, :] <= index[:, None]) & (
        (owner[:, None] == owner[None, :]) | (owner[None, :] == -1) | (owner[:, None] == len(request.segments)))
    _add_backends(contenders, "SDPA mask", q, k, v, True, attn_mask=mask)


def flex_mask(torch, request, device, length):
    """The request's BlockMask. Made at once, by tensors of [length, length]: compiling that takes longer."""
    from torch.nn.attention.flex_attention import create_block_mask
    owner = torch.from_numpy(request.owners()).to(device)
    num_segments = len(request.segments)

    def mask_mod(batch, head, row, key):
        return (key <= row) & ((owner[row] == owner[key]) | (owner[key] == -1) | (owner[row] == num_segments))
    return create_block_mask(mask_mod, None, None, length, length, device=device)


def _flex(torch, request, q, k, v):
    import triton  # noqa: F401 - without it flex_attention would run unfused, or fail later
    from torch.nn.attention.flex_attention import flex_attention
    block_mask = flex_mask(torch, request, q.device, q.shape[2])
    torch._dynamo.reset()  # else a few shapes later it stops compiling and runs unfused
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return lambda: compiled(q, k, v, block_mask=block_mask, enable_gqa=True)


def _add_flex(contenders, request, q, k, v):
    if q.device.type != "cuda":
        contenders.missing["FlexAttention"] = "compiled for a GPU only"
        return
    contenders.add("FlexAttention", functools.partial(_flex, contenders.torch, request, q, k, v), True)


def _rows_first(x):
    """[requests, heads, length, d] -> [requests * length, heads, d]"""
    return x.transpose(1, 2).reshape(-1, x.shape[1], x.shape[3]).contiguous()


def _add_varlen(contenders, request, q, k, v):
    """Segments as sequences of their own: the same result where there is no prefix and no suffix."""
    torch = contenders.torch
    names = ("varlen flash (torch)", "varlen flash (flash_attn)", "FlashInfer ragged")
    if request.prefix or request.suffix or request.generated:
        contenders.missing.update(dict.fromkeys(names, "segments with a shared prefix or suffix are no plain sequences"))
        return
    if q.device.type != "cuda":
        contenders.missing.update(dict.fromkeys(names, "runs on a GPU only"))
        return
    lengths = torch.tensor(list(request.segments) * q.shape[0], dtype=torch.int32)
    bounds = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0, dtype=torch.int32)]).to(q.device)
    longest = max(request.segments)
    rows, keys, values = _rows_first(q), _rows_first(k), _rows_first(v)

    def back(out):
        return out.reshape(q.shape[0], q.shape[2], q.shape[1], q.shape[3]).transpose(1, 2)

    def torch_flash():
        # What torch.nn.attention.varlen.varlen_attn calls, without a kernel of its own that it starts beside it.
        return lambda: back(torch.ops.aten._flash_attention_forward(
            rows, keys, values, bounds, bounds, longest, longest, 0.0, True, return_debug_mask=False,
            window_size_left=-1, window_size_right=0)[0])

    def flash_attn():
        from flash_attn import flash_attn_varlen_func
        return lambda: back(flash_attn_varlen_func(rows, keys, values, bounds, bounds, longest, longest, causal=True))

    def flashinfer_ragged():
        import flashinfer
        wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
            torch.empty(256 << 20, dtype=torch.uint8, device=q.device), "NHD")
        wrapper.plan(bounds, bounds, q.shape[1], k.shape[1], q.shape[3], causal=True, q_data_type=q.dtype)
        return lambda: back(wrapper.run(rows, keys, values))

    for name, make in zip(names, (torch_flash, flash_attn, flashinfer_ragged), strict=True):
        contenders.add(name, make, True)


def contenders_of(torch, case, q, k, v, begin, check_device):
    """q [requests, heads, rows, d], k and v [requests, kv heads, length, d] of a case, contiguous."""
    contenders = Contenders(torch, begin, check_device)
    if case.request.is_decode:
        _add_backends(contenders, "SDPA", q, k, v, True)
        return contenders
    _add_backends(contenders, "SDPA causal", q, k, v, False, is_causal=True)
    _add_mask(contenders, case.request, q, k, v)
    _add_flex(contenders, case.request, q, k, v)
    _add_varlen(contenders, case.request, q, k, v)
    return contenders
