"""A Chorus service in Python for tests without a model: answers by rule, fails by plan."""
import concurrent.futures
import contextlib
import threading
import time

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from chorus_client.v1 import inference_pb2 as pb
from chorus_client.v1 import inference_pb2_grpc as services


def prompts_of(request):
    text = request.prompt.text
    return list(text.prompts) or [text.question, *text.paraphrases]


def echo(request):
    """The answers, one a prompt: the prompt itself."""
    return prompts_of(request)


def rpc_status(code, message, *details):
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def bad_field(field, description):
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
    return rpc_status(code_pb2.INVALID_ARGUMENT, f"{field}: {description}",
                      error_details_pb2.BadRequest(field_violations=[violation]))


def busy(seconds=0.0):
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(int(seconds * 1e9))
    return rpc_status(code_pb2.RESOURCE_EXHAUSTED, "the queue is full", retry)


def unavailable():
    return rpc_status(code_pb2.UNAVAILABLE, "the server stops")


class FakeService(services.InferenceServicer):
    """`failures`: statuses that the next requests get, in order, before any is answered. `answer`: the
    answers of a request, one a prompt."""

    def __init__(self, answer=echo, failures=(), delay=0.0):
        self.answer, self.failures, self.delay = answer, list(failures), delay
        self.model_name = "fake"
        self.break_after = None  # GenerateMany: the stream breaks after this many answers, once
        self.requests, self.metadata, self.max_running, self.num_streams = [], [], 0, 0
        self.lock = threading.Lock()

    def take(self, request, context):
        with self.lock:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            return self.failures.pop(0) if self.failures else None

    def events(self, request, request_id):
        answers = self.answer(request)
        yield pb.GenerateResponse(prompt_info=pb.PromptInfo(
            request_id=request_id, seed=request.sampling.seed, prompt_tokens=7, cached_tokens=3))
        fused = answers[0]
        for word in fused.split(" "):
            yield pb.GenerateResponse(chunk=pb.TokenChunk(text=word, token_ids=[len(word)], logprobs=[-0.5]))
        finish = pb.FinishInfo(reason=pb.FINISH_REASON_EOS, text=fused, token_ids=[1, 2])
        finish.usage.prompt_tokens, finish.usage.generated_tokens = 7, 2
        finish.usage.cached_tokens, finish.usage.model_steps = 3, 2
        finish.timing.total_seconds = 0.25
        if request.fusion.method in (pb.FUSION_METHOD_PER_PROMPT, pb.FUSION_METHOD_VOTE):
            for index, text in enumerate(answers):
                finish.prompts.add(index=index, text=text, reason=pb.FINISH_REASON_EOS)
        yield pb.GenerateResponse(finish=finish)

    def Generate(self, request, context):
        failure = self.take(request, context)
        if failure is not None:
            fail(context, failure)
        time.sleep(self.delay)
        yield from self.events(request, request.request_id)

    def GenerateMany(self, request_iterator, context):
        """Answers backwards in groups, so that the order of answers is not that of requests."""
        self.num_streams += 1
        group, answered = [], 0
        for message in request_iterator:
            group.append((message, self.take(message.request, context)))
            self.max_running = max(self.max_running, len(group))
            if len(group) < 3 and self.more_comes(message):
                continue
            for item, failure in reversed(group):
                if self.break_after is not None and answered == self.break_after:
                    self.break_after = None
                    fail(context, unavailable())
                answered += 1
                time.sleep(self.delay)
                yield from self.many_events(item, failure)
            group = []

    def more_comes(self, message):
        return message.request_id.endswith("+")

    def many_events(self, item, failure):
        if failure is not None:
            yield pb.GenerateManyResponse(request_id=item.request_id, error=failure)
            return
        for event in self.events(item.request, item.request_id):
            yield pb.GenerateManyResponse(request_id=item.request_id, response=event)

    def Score(self, request, context):
        """Each token is one character or id, with log-probability -1 under prompt 0, -2 under prompt 1, ..."""
        failure = self.take(request, context)
        if failure is not None:
            fail(context, failure)
        time.sleep(self.delay)
        response = pb.ScoreResponse(prompt_info=pb.PromptInfo(request_id=request.request_id, prompt_tokens=7))
        for item in request.continuations:
            ids = list(item.tokens.token_ids) or [ord(c) for c in item.text]
            prompt_logprobs = [-len(ids) * (index + 1.0) for index in range(len(prompts_of(request)))]
            response.scores.add(logprob=-len(ids), is_greedy=ids[0] == ord(" "), token_logprobs=[-1.0] * len(ids),
                                token_ids=ids, greedy_token_ids=[ord(" ")] * len(ids),
                                prompt_logprobs=prompt_logprobs if request.prompt_logprobs else [])
        response.usage.scored_tokens = sum(len(score.token_ids) for score in response.scores)
        return response

    def Explain(self, request, context):
        return pb.ExplainResponse(
            layout=pb.FusedLayout(tokens=["a", "b"], segments=[pb.TokenRange(begin=0, end=2)], length=2),
            mask=pb.MaskStatistics(allowed=3, total=4, ratio=0.75), steps=request.steps,
            units=[pb.AttentionUnit(kind=pb.UNIT_KIND_SEGMENT, prompt_index=1, num_keys=2)],
            layers=[pb.LayerAttention(layer=l, logits=[0.5], mass=[1.0]) for l in request.layers])

    def Tokenize(self, request, context):
        return pb.TokenizeResponse(token_ids=[ord(c) for c in request.text], tokens=list(request.text))

    def Detokenize(self, request, context):
        return pb.DetokenizeResponse(text="".join(map(chr, request.token_ids)))

    def GetModelInfo(self, request, context):
        failure = self.take(request, context)
        if failure is not None:
            fail(context, failure)
        return pb.GetModelInfoResponse(name=self.model_name, dtype="float32", vocab_size=256,
                                       template=pb.TEMPLATE_CHATML, eos_token_ids=[2],
                                       context_length=2048, max_request_tokens=4096, max_continuations=4)


def fail(context, status):
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    context.abort(code, status.message)


@contextlib.contextmanager
def serve(service, port=0, credentials=None):
    """Yields "127.0.0.1:PORT"."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    services.add_InferenceServicer_to_server(service, server)
    address = f"127.0.0.1:{port}"
    bound = (server.add_insecure_port(address) if credentials is None
             else server.add_secure_port(address, credentials))
    server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        server.stop(None).wait()
