"""LoRAs: read from files of many forms, held in slots beside a model's layers, or merged into its weights.

One reading, without torch, for whoever asks: `reading` tells what a file changes (`roles` what each tensor is by its
name, `strength` how strong metadata makes it, `bases` for which architecture), `layout` what a model has to change and
`spellings` what files call that, `fit` which of the tensors go where. It is the inspecting process's and the engine's.

The way of one LoRA to a picture: `file` opens it, `match` makes the fit's changes of its tensors (`convert` asks
diffusers for forms that only it knows), `reader` does it in a thread; `slots` (or, for what does not fit there,
`merge`) applies it, and `adapter_manager` decides which LoRAs a loaded model holds.
"""
