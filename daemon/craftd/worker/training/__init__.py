"""Training LoRAs, between the engine's own turns.

The way of one training: `recipe` says what is asked for; `trainings` queues it, waits for its model and shares the
device; `run` is its life, one short piece of work after another. `pictures` makes tensors of its
pictures, `dataset` keeps what the model's encoders make of them, `trainable` is the model with an adapter,
`objective` the loss, `trainer` the steps; `state` saves them, `lora_file` writes the result.
"""
