"""The text below the options of `craft generate --help`: examples, output names, batches."""

from __future__ import annotations

EXAMPLES = """\b
Examples:
  craft generate "a red apple"
  craft generate "a red apple" -n 4 -o 'apple-{seed}.png'
  craft generate "a red apple" --seed 7 -s 30 --sampler "dpm++ 2m karras"
  echo "a red apple" | craft generate -o apple.webp
  craft generate "a green apple" -i apple.png --strength 0.6
  craft generate "a worm" -i apple.png --mask hole.png --mask-padding 32
  craft generate "a red apple" --upscale 4
  craft generate "a red apple" --hires 1.5 --upscale 2
  craft generate "a red apple" -m sdxl --refiner refiner
  craft generate "the apple in this hand" --ref apple.png --ref hand.png -m flux2-klein-4b
  craft generate "a cat" --control edges=sketch.png:0.8
  craft generate "a red apple" -l watercolor:0.8 -l grain:0.3
  craft generate "a red apple <lora:watercolor:0.8>"
  craft generate --like apple.png -n 4
  craft generate "a red apple" -o - | magick - apple.gif
  craft generate "a red apple" --sweep guidance=1,2,4 --sweep steps=8,20
  craft generate --batch prompts.txt -o 'out/{n:03}.png' | jq -r .path

\b
Names: without -o a picture goes to ./SLUG-SEED.png, its prompt and its seed.
  -o may be a file, a folder, - (stdout), or a pattern of {seed}, {index} (from
  0), {n} (from 1), {id}, {job} and {slug}. A plain file name with -n 3 becomes
  apple-1.png, apple-2.png, apple-3.png. What exists is kept, without --force.

\b
Batch: a line is a prompt, or a JSON object; what it leaves out, the options say.
  A CSV file does as well, whose first line names the fields. What goes wrong is
  said on stderr; with --json also as an object in its line's place.
  {"prompt": "a red apple", "seed": 7, "count": 4, "indices": [2], "steps": 30}
  prompt, negative_prompt, model, width, height, steps, guidance_scale, seed,
  count, indices (only these of the count, from 0), sampler, format,
  deterministic, clip_skip, guidance_rescale, original_width, original_height,
  crop_left, crop_top, prompt_syntax, wildcards, true_cfg_scale,
  loras ([{"lora": "it", "weight": 0.8}]), lora_missing, trigger_words,
  image and mask (paths, or pictures' ids), strength, fit, mask_blur,
  mask_grow, mask_invert, mask_padding, refs (a list of such), start
  (an object in the place of image, for a picture that was sent:
  {"sha256": "3f9a...", "strength": 0.6}), references ([{"sha256": "3f9a..."}]),
  upscale ({"scale": 4, "model": "pocket-x4"}), hires ({"scale": 1.5, "strength":
  0.5, "steps": 20, "upscaler": "lanczos"}), refiner ({"model": "refiner",
  "switch": 0.8}),
  control (a list of such as --control has), control_model (a list), control_steps,
  controls ([{"sha256": "3f9a...", "kind": "canny", "scale": 0.8}]),
  default_model (for the configured one, where no model is named),
  request_id (the same one: the same job), expire_time (not drawn
  if its turn comes after it: "2030-01-31T18:00:00Z"), priority ("interactive"
  or "batch"), lease (false: drawn even where this command vanishes),
  public (true: over HTTP its pictures need no key), webhook (a URL that is told
  of the job's end).

\b
Exit codes: 0 done, 1 the job failed, 2 usage, 65 bad data, 66 no such model or LoRA,
  69 no daemon, 73 the file exists, 74 it cannot be written, 75 try later,
  130 interrupted.
"""
