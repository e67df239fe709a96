"""LoRAs: read from files of many forms, held in slots beside a model's layers, or merged into its weights.

The way of one LoRA: `file` opens it, `names` says what each of its tensors belongs to, `match` fits them to
the model, `reader` does both in a thread; `slots` (or, for what does not fit there, `merge`) applies it, and
`residents` decides which LoRAs a loaded model holds.
"""
