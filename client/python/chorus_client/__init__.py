"""Client of the Chorus inference service: several wordings of a question, one fused answer.

    from chorus_client import Client

    with Client("127.0.0.1:50051") as client:
        for chunk in client.stream("What is the capital of France?",
                                   paraphrases=["Name the capital city of France."],
                                   method="attention", max_new_tokens=24):
            print(chunk.text, end="", flush=True)

`Client` blocks, `AsyncClient` is for asyncio; both have generate, stream, generate_many, score,
explain, tokenize, detokenize and model_info. Everything that fails raises a ChorusError.
"""
from chorus_client.aio import AsyncClient, AsyncTokenStream
from chorus_client.channel import Tls
from chorus_client.client import Client, TokenStream
from chorus_client.errors import (Cancelled, ChorusError, DeadlineExceeded, FieldViolation, Internal,
                                  InvalidArgument, PermissionDenied, ResourceExhausted, Unauthenticated,
                                  Unavailable, Unimplemented)
from chorus_client.many import ManyResult
from chorus_client.request import make_request, make_score_request
from chorus_client.retry import RetryPolicy
from chorus_client.types import (Answer, Attribution, Continuation, ContinuationScore,
                                 ExplainRequest, ExplainResponse, FinishInfo, FinishReason,
                                 FirstToken, Fusion, GenerateRequest, Method, ModelInfo, Positions,
                                 PromptAnswer, PromptInfo, ResponseOptions, Sampling, ScoreRequest,
                                 ScoreResponse, Separators, Stopping, Template, TextPrompt,
                                 TokenChunk, TokenPrompt, TokenSegment, TokenizeResponse, Usage)

__all__ = [
    "Answer", "AsyncClient", "AsyncTokenStream", "Attribution", "Cancelled", "ChorusError", "Client",
    "Continuation", "ContinuationScore", "DeadlineExceeded", "ExplainRequest", "ExplainResponse",
    "FieldViolation", "FinishInfo", "FinishReason", "FirstToken", "Fusion", "GenerateRequest",
    "Internal", "InvalidArgument", "ManyResult", "Method", "ModelInfo", "PermissionDenied", "Positions",
    "PromptAnswer", "PromptInfo", "ResourceExhausted", "ResponseOptions", "RetryPolicy", "Sampling",
    "ScoreRequest", "ScoreResponse", "Separators", "Stopping", "Template", "TextPrompt", "Tls",
    "TokenChunk", "TokenPrompt", "TokenSegment", "TokenStream", "TokenizeResponse", "Unauthenticated",
    "Unavailable", "Unimplemented", "Usage", "make_request", "make_score_request",
]
