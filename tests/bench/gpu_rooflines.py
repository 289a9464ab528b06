"""Rooflines of decoding: the time that reading a step's weights and keys once takes at the measured copy rate."""

# Of kernels.md: tokens a second at batch 1.
MODEL_TARGETS = {"llama-3.2-3b": {1: 500}, "llama-3.1-8b": {1: 230}}


def roofline(batch, keys_a_step, model, copy_rate):
    """Tokens a second. `model`: step_weight_bytes and kv_bytes_per_token, as the programs report them."""
    step_bytes = model["step_weight_bytes"] + keys_a_step * model["kv_bytes_per_token"]
    return batch * copy_rate / step_bytes


def add_rooflines(document, copy_rate):
    """To every run of a document of gpu_model_bench, with the targets that it has."""
    for engine in document.get("engines", ()):
        for run in engine["runs"]:
            limit = roofline(run["batch"], run["keys_a_step"], engine, copy_rate)
            run["roofline_tokens_per_second"] = limit
            run["share_of_roofline"] = run["decode_tokens_per_second"] / limit
            target = MODEL_TARGETS.get(engine["model"], {}).get(run["batch"])
            if target and run["method"] == "ATTENTION":
                run["target"] = {"tokens_per_second": target, "met": run["decode_tokens_per_second"] >= target}
        fused, ensemble = ({run["batch"]: run["decode_tokens_per_second"] for run in engine["runs"]
                            if run["method"] == method} for method in ("ATTENTION", "LOGIT_MEAN"))
        engine["fused_times_ensemble"] = {str(batch): fused[batch] / ensemble[batch] for batch in fused
                                          if ensemble.get(batch)}
