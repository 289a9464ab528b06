"""A Chorus server as its metrics page shows it, simulated: random arrivals, a batch of bounded size, a
queue, callers that cancel or are late, a warm segment cache. Time is in seconds."""
import bisect
import dataclasses
import heapq
import math
import random

SCRAPE = 15
TTFT_BUCKETS = (0.25, 0.5, 1, 2.5, 5, 10, 25)
NAMES = ("requests_accepted_total", 'requests_finished_total{method="attention",outcome="ok"}',
         'requests_finished_total{method="attention",outcome="cancelled"}',
         'requests_finished_total{method="attention",outcome="deadline_exceeded"}',
         'requests_finished_total{method="attention",outcome="internal"}',
         'requests_finished_total{method="attention",outcome="resource_exhausted"}',
         'requests_rejected_total{reason="queue_full"}', 'requests_rejected_total{reason="deadline"}',
         "requests_running", "requests_waiting", "max_queued_requests", "kv_used_ratio", "preemptions_total",
         "segment_cache_hits_total", "segment_cache_misses_total", 'worker_heartbeat_timestamp_seconds{worker="0"}',
         "draining", "drain_started_timestamp_seconds", "drain_timeout_seconds", "time_to_first_token_seconds_count",
         *(f'time_to_first_token_seconds_bucket{{le="{le}"}}' for le in (*TTFT_BUCKETS, "+Inf")))


@dataclasses.dataclass(frozen=True)
class Traffic:
    """`phases`: (until, requests a second), but in bursts `burst` times as many. The server's limit is
    max_running / answer_seconds: 4 a second."""
    phases: tuple
    burst: float = 2
    burst_seconds: float = 20
    seconds_between_bursts: float = 400
    answer_seconds: float = 4  # mean; log-normal
    max_running: int = 16
    max_queued: int = 256
    cancelled: float = 0.02
    late: float = 0.005
    cached: float = 0.75
    restarts: tuple = ()  # (drain begins, serves again)
    drain_timeout: float = 60


class SimulatedServer:
    def __init__(self, traffic, seed):
        self.traffic = traffic
        self.random = random.Random(seed)
        self.now = 0.0
        self.in_burst = False
        self.burst_change = self.random.expovariate(1 / traffic.seconds_between_bursts)
        self.restart()

    def restart(self):
        self.counts = dict.fromkeys(NAMES, 0)
        self.counts["max_queued_requests"] = self.traffic.max_queued
        self.counts["drain_timeout_seconds"] = self.traffic.drain_timeout
        self.queue = []    # arrival times
        self.running = []  # heap of (end, outcome)

    def count(self, name, by=1):
        self.counts[name] += by

    def rate(self):
        base = self.traffic.phases[bisect.bisect_right([until for until, _ in self.traffic.phases], self.now)][1]
        return base * (self.traffic.burst if self.in_burst else 1)

    def arrive(self):
        if len(self.queue) >= self.traffic.max_queued:
            self.count('requests_rejected_total{reason="queue_full"}')
            return
        self.count("requests_accepted_total")
        self.queue.append(self.now)

    def start_some(self):
        while self.queue and len(self.running) < self.traffic.max_running:
            waited = self.now - self.queue.pop(0)
            first_token = waited + self.random.uniform(0.1, 0.9)
            for le in TTFT_BUCKETS:
                if first_token <= le:
                    self.count(f'time_to_first_token_seconds_bucket{{le="{le}"}}')
            self.count('time_to_first_token_seconds_bucket{le="+Inf"}')
            self.count("time_to_first_token_seconds_count")
            for _ in range(6):
                hit = self.random.random() < self.traffic.cached
                self.count("segment_cache_hits_total" if hit else "segment_cache_misses_total")
            draw = self.random.random()
            outcome = ("cancelled" if draw < self.traffic.cancelled
                       else "deadline_exceeded" if draw < self.traffic.cancelled + self.traffic.late else "ok")
            seconds = self.random.lognormvariate(math.log(self.traffic.answer_seconds) - 0.32, 0.8)
            heapq.heappush(self.running, (self.now + seconds, outcome))
            if len(self.running) == self.traffic.max_running and self.random.random() < 0.02:
                self.count("preemptions_total")

    def next_arrival(self, admits):
        """From now on; to be drawn again when the rate changes, which changes nothing while it does not."""
        rate = self.rate() if admits else 0
        return self.now + self.random.expovariate(rate) if rate else math.inf

    def advance(self, until, admits):
        """Runs to `until`, from event to event; new requests come only if `admits`."""
        arrival = self.next_arrival(admits)
        while True:
            end = self.running[0][0] if self.running else math.inf
            self.now = min(arrival, end, self.burst_change, until)
            if self.now == until:
                return
            if self.now == end:
                self.count(f'requests_finished_total{{method="attention",outcome="{heapq.heappop(self.running)[1]}"}}')
            elif self.now == arrival:
                self.arrive()
                arrival = self.next_arrival(admits)
            else:
                self.in_burst = not self.in_burst
                mean = self.traffic.burst_seconds if self.in_burst else self.traffic.seconds_between_bursts
                self.burst_change += self.random.expovariate(1 / mean)
                arrival = self.next_arrival(admits)
            self.start_some()

    def page(self, drained_since):
        page = {**self.counts, "requests_running": len(self.running), "requests_waiting": len(self.queue),
                "kv_used_ratio": 0.05 * len(self.running),
                'worker_heartbeat_timestamp_seconds{worker="0"}': self.now - self.random.uniform(0, 0.9),
                "draining": int(drained_since is not None), "drain_started_timestamp_seconds": drained_since or 0}
        if self.random.random() < 0.1 and page["requests_running"] > 0:
            page["requests_running"] -= 1  # a request that ended while the page was read
        return page

    def scrapes(self):
        """One page each SCRAPE seconds to the last phase's end; None where there is no server."""
        pages = []
        restarts = list(self.traffic.restarts)
        for when in range(0, int(self.traffic.phases[-1][0]), SCRAPE):
            if restarts and when >= restarts[0][1]:
                restarts.pop(0)
                self.restart()
            since = restarts[0][0] if restarts and when >= restarts[0][0] else None
            self.advance(when, admits=since is None)
            gone = since is not None and not self.running and not self.queue
            pages.append(None if gone else self.page(since))
        return pages
