"""MMBench without its judge: lmms-eval would ask a web API about an answer that it cannot parse; here it is wrong."""

from collections import defaultdict

from lmms_eval.tasks.mmbench import en_utils

from components.evaluation.benchmarks import SECOND_PASS


def mmbench_process_results(doc: dict, results: list[str]) -> dict:
    """Parse with lmms-eval's own rules; what they cannot parse is no option, and so wrong."""
    record = en_utils.mmbench_process_results(doc, results)["gpt_eval_score"]
    chosen = en_utils.mmbench_evaluator.prefetch_answer(record)
    return {"mmbench_accuracy": {"index": doc["index"], "score": float(chosen == doc["answer"])}}


def mmbench_aggregate(results: list[dict]) -> float:
    """CircularEval: a question counts when it is right in every pass."""
    passes = defaultdict(list)
    for result in results:
        passes[result["index"] % SECOND_PASS].append(result["score"])
    return sum(min(scores) for scores in passes.values()) / len(passes)
