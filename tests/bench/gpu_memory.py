"""Where the benchmark's arrays lie and how its kernels are timed: on a GPU through torch, or in host memory through
numpy for simulated thread blocks. Both hold bfloat16; random numbers are the same in every run."""

import gc
import statistics
import time

import numpy

NAN_BITS = 0x7FFF
FLUSH_BYTES = 256 << 20  # more than any second-level cache
SECONDS_A_CONTENDER = 0.5
# Cycles; the host has so long to queue a call, a compiled one of PyTorch's with all its checks included.
SLEEP_CYCLES = 3_000_000


class HostMemory:
    """Arrays are numpy's; bfloat16 is uint16."""
    name = "host (simulated)"
    is_gpu = False
    num_devices = 0
    stream = None

    def uniform(self, shape, limit, seed):
        values = numpy.random.default_rng(seed).uniform(-limit, limit, shape).astype(numpy.float32)
        bits = values.view(numpy.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(numpy.uint16)

    def nans(self, shape):
        return numpy.full(shape, NAN_BITS, numpy.uint16)

    def floats(self, shape):
        return numpy.full(shape, numpy.nan, numpy.float32)

    def upload(self, data):
        return numpy.frombuffer(data if data else bytes(16), numpy.uint8).copy()

    def scatter(self, to, slots, values):
        to[slots] = values

    def take(self, array, indices):
        return array[indices]

    def pointer(self, array):
        return array.ctypes.data

    def to_float(self, array):
        if array.dtype == numpy.float32:
            return array
        return (array.astype(numpy.uint32) << 16).view(numpy.float32)

    def same_bits(self, first, second):
        return first.tobytes() == second.tobytes()

    def is_finite(self, array):
        return bool(numpy.isfinite(self.to_float(array)).all())

    def copy(self, array):
        return array.copy()

    def as_torch(self, array):
        import torch
        return torch.from_numpy(array.view(numpy.int16)).view(torch.bfloat16)

    def wait(self):
        pass

    def is_alive(self):
        return True

    def trim(self):
        """Gives back what is no longer used."""

    def graph(self, calls):
        """One function that makes all calls; on a GPU, one CUDA graph."""
        return lambda: [call() for call in calls]

    def measure(self, contenders, calls_each=1, is_cold=True, failed=None):
        """{name: microseconds of a call}; a contender makes `calls_each` calls. failed(name, error) is told of those that
        cannot be run; without it they raise."""
        found = {}
        for name, contender in contenders.items():
            begin = time.perf_counter()
            contender()
            found[name] = (time.perf_counter() - begin) * 1e6 / calls_each
        return found


class GpuMemory:
    """Arrays are torch's."""
    is_gpu = True

    def __init__(self, torch, index):
        self.torch = torch
        torch.cuda.set_device(index)
        torch.set_grad_enabled(False)  # for good: what is compiled in one mode is compiled again in the other
        self.device = torch.device("cuda", index)
        properties = torch.cuda.get_device_properties(index)
        self.name = properties.name
        self.num_devices = torch.cuda.device_count()
        self.properties = {"name": properties.name, "multiprocessors": properties.multi_processor_count,
                           "memory_bytes": properties.total_memory,
                           "capability": f"{properties.major}.{properties.minor}",
                           "torch": torch.__version__, "cuda": torch.version.cuda}
        self._flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device=self.device)

    @property
    def stream(self):
        return self.torch.cuda.current_stream().cuda_stream

    def uniform(self, shape, limit, seed):
        generator = self.torch.Generator(self.device).manual_seed(seed)
        out = self.torch.empty(shape, dtype=self.torch.bfloat16, device=self.device)
        return out.uniform_(-limit, limit, generator=generator)

    def nans(self, shape):
        return self.torch.full(shape, float("nan"), dtype=self.torch.bfloat16, device=self.device)

    def floats(self, shape):
        return self.torch.full(shape, float("nan"), dtype=self.torch.float32, device=self.device)

    def upload(self, data):
        array = numpy.frombuffer(data if data else bytes(16), numpy.uint8).copy()
        return self.torch.from_numpy(array).to(self.device)

    def _indices(self, indices):
        return self.torch.from_numpy(numpy.asarray(indices, numpy.int64)).to(self.device)

    def scatter(self, to, slots, values):
        to[self._indices(slots)] = values

    def take(self, array, indices):
        return array[self._indices(indices)]

    def pointer(self, array):
        return array.data_ptr()

    def to_float(self, array):
        return array.float().cpu().numpy()

    def same_bits(self, first, second):
        return bool(self.torch.equal(first.contiguous().view(self.torch.int16), second.contiguous().view(self.torch.int16)))

    def is_finite(self, array):
        return bool(self.torch.isfinite(array).all())

    def copy(self, array):
        return array.clone()

    def as_torch(self, array):
        return array

    def wait(self):
        self.torch.cuda.synchronize()

    def is_alive(self):
        """False after an error that a CUDA context does not outlive."""
        try:
            self.torch.cuda.synchronize()
            return int(self.torch.ones(8, device=self.device).sum()) == 8
        except Exception:  # noqa: BLE001
            return False

    def trim(self):
        gc.collect()
        self.torch.cuda.empty_cache()

    def graph(self, calls):
        side = self.torch.cuda.Stream()
        side.wait_stream(self.torch.cuda.current_stream())
        with self.torch.cuda.stream(side):
            for call in calls:  # whatever a first call allocates or compiles
                call()
        self.torch.cuda.current_stream().wait_stream(side)
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph.replay

    def _once(self, contender, is_cold):
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The device sleeps while the host queues what follows: launches are not part of the time.
        self.torch.cuda._sleep(SLEEP_CYCLES)
        if is_cold:
            self._flush.zero_()
        begin.record()
        contender()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3

    def measure(self, contenders, calls_each=1, is_cold=True, failed=None):
        """As HostMemory's. Medians over rounds in which every contender runs once, so that all meet the same clocks.
        `is_cold`: the second-level cache is emptied before."""
        rounds = {}
        for name, contender in contenders.items():
            try:
                for _ in range(3):
                    contender()
                guess = self._once(contender, is_cold)
            except Exception as error:  # noqa: BLE001 - the others are still to be measured
                if failed is None:
                    raise
                failed(name, error)
                continue
            rounds[name] = int(min(60, max(5, SECONDS_A_CONTENDER * 1e6 / max(guess, 2000))))
        times = {name: [] for name in rounds}
        for index in range(max(rounds.values(), default=0)):
            for name in rounds:
                if index < rounds[name]:
                    times[name].append(self._once(contenders[name], is_cold))
        return {name: statistics.median(values) / calls_each for name, values in times.items()}

    def release(self):
        """Gives memory back to the device, for other processes."""
        self._flush = None
        self.trim()

    def copy_bytes_per_second(self):
        """Bytes read and written by a large copy on the device."""
        half = 2 << 30
        source = self.torch.empty(half, dtype=self.torch.uint8, device=self.device)
        target = self.torch.empty_like(source)
        microseconds = self.measure({"copy": lambda: target.copy_(source)})["copy"]
        return 2 * half / microseconds * 1e6


def open_memory(is_host, index=0):
    """(memory, "") or (None, why there is none)."""
    if is_host:
        return HostMemory(), ""
    try:
        import torch
    except ImportError as error:
        return None, f"torch cannot be imported: {error}"
    if not torch.cuda.is_available():
        return None, "torch sees no CUDA device"
    if index >= torch.cuda.device_count():
        return None, f"--device={index}: torch sees {torch.cuda.device_count()} CUDA devices"
    return GpuMemory(torch, index), ""
