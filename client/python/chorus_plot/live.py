"""Data straight from a server, by chorus_client, which is imported only when it is needed."""
import dataclasses

from chorus_plot.attribution_data import attribution_from_json
from chorus_plot.errors import InputError
from chorus_plot.explain_data import ExplainData


def explain(server, question, paraphrases, *, layers=(), heads=(), steps=(), deadline=None,
            **options):
    """ExplainData of one request. `options`: fields of the request, as Client.generate takes them."""
    client = _client_module()
    request = client.ExplainRequest(
        request=client.make_request(question, paraphrases, method="attention", **options),
        layers=layers, heads=heads, steps=steps)
    with client.Client(server, deadline=deadline) as connection:
        response = _call(client, lambda: connection.explain(request))
    return ExplainData.from_json(dataclasses.asdict(response))


def attribution(server, question, paraphrases, *, deadline=None, **options):
    """AttributionData of one answer, and the answer as JSON that load_attribution reads again."""
    client = _client_module()
    with client.Client(server, deadline=deadline) as connection:
        answer = _call(client, lambda: connection.generate(
            question, paraphrases, method="attention", attribution=True, **options))
    tokens = [token for chunk in answer.chunks for token in _tokens(chunk)]
    saved = {"method": "attention", "text": answer.text, "tokens": tokens}
    return attribution_from_json(saved), saved


def _tokens(chunk):
    """A chunk of several tokens says only their text together: it goes to the first."""
    for index, (token_id, shares) in enumerate(zip(chunk.token_ids, chunk.attribution)):
        yield {"token_id": token_id, "text": chunk.text if index == 0 else "",
               "attribution": dataclasses.asdict(shares)}


def _client_module():
    try:
        import chorus_client
    except ImportError as error:
        raise InputError(f"chorus_client cannot be imported ({error}): install client/python, or "
                         "draw from a file that `chorus explain --json` wrote") from None
    return chorus_client


def _call(client, call):
    try:
        return call()
    except (client.ChorusError, ValueError) as error:  # refused by the server; no such number
        raise InputError(str(error)) from None
