"""What compression does to what an MLLM can answer: benchmarks, rates, scores, and the curves drawn from them."""
