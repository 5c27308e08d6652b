"""How each method of the settings' `variants` is trained: a module per method, with `train(inputs: StepInputs)`.

It writes a folder `model` (with any of adapter/, neck/, modulation/, codec/, mllm/) and metrics.json into `inputs.out`.
"""
