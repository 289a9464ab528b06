"""What the kernels are compared with, on the same numbers: PyTorch's SDPA with each of its back ends, over the
concatenated prompt (plainly causal: more work, another result) and with the segment mask as an explicit tensor;
FlexAttention with the same mask; variable-length flash attention over segments; FlashInfer. Each may be missing."""

import functools

MATH_LIMIT_BYTES = 8 << 30
MASK_LIMIT_BYTES = 16 << 30
BACKENDS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


class Contenders:
    """`run`: name -> function that returns the output [requests, heads, rows, head_dim]; `missing`: name -> why not."""

    def __init__(self, torch):
        self.torch = torch
        self.run, self.missing = {}, {}
        self.same_mask = set()  # those that compute what ours does

    def add(self, name, function, same_mask=False):
        try:
            with self.torch.no_grad():
                function()
            if self.torch.cuda.is_available():
                self.torch.cuda.synchronize()
        except Exception as error:  # noqa: BLE001 - a comparator may fail in any way of its own
            self.missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}" if str(
                error).strip() else type(error).__name__
            return
        self.run[name] = function
        if same_mask:
            self.same_mask.add(name)


def _grouped(torch, q, k, v, function):
    """function(q, k, v, enable_gqa) with grouped heads where it takes them, else with keys repeated beforehand."""
    try:
        function(q, k, v, True)
    except Exception:  # noqa: BLE001
        groups = q.shape[1] // k.shape[1]
        wide_k, wide_v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        return functools.partial(function, q, wide_k, wide_v, False)
    return functools.partial(function, q, k, v, True)


def _sdpa(torch, backend, q, k, v, **arguments):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def call(q, k, v, enable_gqa):
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=enable_gqa, **arguments)
    return _grouped(torch, q, k, v, call)


def _add_backends(contenders, prefix, q, k, v, same_mask, **arguments):
    torch = contenders.torch
    scores = 4 * q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
    for backend in BACKENDS:
        name = f"{prefix} {backend}"
        if backend == "MATH" and scores > MATH_LIMIT_BYTES:
            contenders.missing[name] = f"its scores would take {scores >> 30} GiB"
            continue
        try:
            function = _sdpa(torch, backend, q, k, v, **arguments)
        except Exception as error:  # noqa: BLE001
            contenders.missing[name] = str(error).strip().splitlines()[0][:200]
            continue
        contenders.add(name, function, same_mask)


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


def _add_flex(contenders, request, q, k, v):
    torch = contenders.torch
    if q.device.type != "cuda":
        contenders.missing["FlexAttention"] = "compiled for a GPU only"
        return
    try:
        import triton  # noqa: F401
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError as error:
        contenders.missing["FlexAttention"] = f"cannot be compiled: {error}"
        return
    owner = torch.from_numpy(request.owners()).to(q.device)
    num_segments = len(request.segments)

    def mask_mod(batch, head, row, key):
        return (key <= row) & ((owner[row] == owner[key]) | (owner[key] == -1) | (owner[row] == num_segments))

    try:
        block_mask = create_block_mask(mask_mod, None, None, q.shape[2], k.shape[2], device=q.device, _compile=True)
        torch._dynamo.reset()  # else a few shapes later it stops compiling and runs unfused
        compiled = torch.compile(flex_attention, dynamic=False)
    except Exception as error:  # noqa: BLE001
        contenders.missing["FlexAttention"] = str(error).strip().splitlines()[0][:200]
        return
    contenders.add("FlexAttention", lambda: compiled(q, k, v, block_mask=block_mask, enable_gqa=True), True)


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

    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        contenders.missing[names[0]] = str(error)
    else:
        def attend(rows, keys, values, enable_gqa):
            return back(varlen_attn(rows, keys, values, bounds, bounds, longest, longest, window_size=(-1, 0)))
        contenders.add(names[0], _grouped(torch, rows, keys, values, attend), True)
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError as error:
        contenders.missing[names[1]] = str(error)
    else:
        contenders.add(names[1], lambda: back(flash_attn_varlen_func(
            rows, keys, values, bounds, bounds, longest, longest, causal=True)), True)
    try:
        import flashinfer
    except ImportError as error:
        contenders.missing[names[2]] = str(error)
        return
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(
        torch.empty(256 << 20, dtype=torch.uint8, device=q.device), "NHD")
    plan = functools.lru_cache(lambda: wrapper.plan(bounds, bounds, q.shape[1], k.shape[1], q.shape[3], causal=True,
                                                    q_data_type=q.dtype))

    def run():
        plan()  # once, in the first call, where an error is caught
        return back(wrapper.run(rows, keys, values))
    contenders.add(names[2], run, True)


def contenders_of(torch, case, q, k, v):
    """q [requests, heads, rows, d], k and v [requests, kv heads, length, d] of a case, contiguous."""
    contenders = Contenders(torch)
    if case.request.is_decode:
        _add_backends(contenders, "SDPA", q, k, v, True)
        return contenders
    _add_backends(contenders, "SDPA causal", q, k, v, False, is_causal=True)
    _add_mask(contenders, case.request, q, k, v)
    _add_flex(contenders, case.request, q, k, v)
    _add_varlen(contenders, case.request, q, k, v)
    return contenders
