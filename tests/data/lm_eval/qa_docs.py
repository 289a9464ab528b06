"""What the tasks of this folder add to tests/data/qa.jsonl."""


def with_choices(dataset):
    """To each question `choices`: its first answer and three of other questions of its kind, and `gold`,
    where its own stands among them. The same for the same questions in the same order."""
    answers = {}
    for document in dataset:
        kind = answers.setdefault(document["relation"], [])
        if document["answers"][0] not in kind:
            kind.append(document["answers"][0])

    def add(document, index):
        right = document["answers"][0]
        others = [answer for answer in answers[document["relation"]] if answer not in document["answers"]]
        picked = [others[(index + step) % len(others)] for step in (0, 1, 2)]
        gold = index % 4
        return {"choices": [*picked[:gold], right, *picked[gold:]], "gold": gold}

    return dataset.map(add, with_indices=True)
