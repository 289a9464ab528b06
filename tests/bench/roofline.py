"""How long a measured run would have taken at the machine's limits: the rows that the server says
it computed, at a GEMM rate, or its weights once a step at the memory's read rate."""


class Work:
    """What a run computed, from the metrics before and after it and the lengths of its prompts."""

    def __init__(self, shapes, before, after, questions):
        """`questions`: a list of (prefix, [prompts], suffix, new tokens) lengths, one a request."""
        def grown(name):
            return after.total(name) - before.total(name)

        self.shapes = shapes
        self.num_steps = grown("chorus_step_rows_count")
        self.num_rows = grown("chorus_step_rows_sum")
        self.prompt_tokens = grown("chorus_prompt_tokens_total")
        self.cached_tokens = grown("chorus_cached_prompt_tokens_total")
        self.generated_tokens = grown("chorus_generated_tokens_total")
        old, new = (reading.buckets("chorus_step_rows") for reading in (before, after))
        self._steps_by_edge = {edge: new[edge] - old[edge] for edge in new}
        self._num_pairs = sum(attention_pairs(*lengths) for lengths in questions)

    @property
    def rows_per_step(self):
        return self.num_rows / self.num_steps

    @property
    def tokens_per_step(self):
        return self.generated_tokens / self.num_steps

    def flops(self):
        """All multiplications and additions: layers, head, attention."""
        matrices = self.shapes.matrix_flops(self.num_rows, self.generated_tokens)
        return (sum(flops for _, flops in matrices)
                + self.shapes.attention_flops(self._num_pairs))

    def gemm_work(self):
        """What MatrixRates.weighted wants. Attention's share is left to the same rate."""
        return [(shape, self.tokens_per_step if shape == self.shapes.head else self.rows_per_step,
                 flops) for shape, flops in self.shapes.matrix_flops(self.num_rows,
                                                                     self.generated_tokens)]

    def rows_of_steps(self):
        """[(steps, rows)]: the page has a histogram of the rows, so a step is taken to lie in the
        middle of its bucket, all of them then stretched so that their sum is the true one."""
        found, low = [], 0.0
        for edge, steps in sorted(self._steps_by_edge.items()):
            middle = (low + edge) / 2 if edge != float("inf") else low
            if steps:
                found.append((steps, middle))
            low = edge
        stretch = self.num_rows / sum(steps * middle for steps, middle in found)
        return [(steps, middle * stretch) for steps, middle in found]

    def roofline_seconds(self, flops_per_second, weight_bytes, read_bytes_per_second):
        """The sum over the steps of max(FLOPs / GEMM rate, weight bytes / read rate)."""
        flops_per_row = self.flops() / self.num_rows
        reading = weight_bytes / read_bytes_per_second
        return sum(steps * max(num_rows * flops_per_row / flops_per_second, reading)
                   for steps, num_rows in self.rows_of_steps())


def triangle(length, seen_before):
    """Keys seen by `length` rows in order, the first of which sees `seen_before` and itself."""
    return length * seen_before + length * (length + 1) // 2


def attention_pairs(prefix, prompts, suffix, new_tokens):
    """ATTENTION, the prefix taken from the cache: keys that each row sees, summed. The last
    generated token is never read."""
    segments = sum(triangle(length, prefix) for length in prompts)
    return segments + triangle(suffix + new_tokens - 1, prefix + sum(prompts))
