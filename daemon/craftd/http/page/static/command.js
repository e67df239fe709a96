// The line that draws the same picture from a terminal.

/** As one word for a POSIX shell. */
export function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** `spec`: as a job has it, every field resolved; `picture`: the file that it began from, `shown`: those that its model saw, `control`: the one that a control model read, where that is known. */
export function commandOf(spec, picture = "", shown = [], control = "") {
  if (spec.steps === 0) return `craft upscale ${quoted(picture || "PICTURE")} --scale ${spec.upscale.scale} --upscaler ${quoted(spec.model)}`;
  const words = ["-m", quoted(spec.model)];
  for (const lora of spec.loras) words.push("-l", quoted(`${lora.name}:${lora.weight}`));
  words.push("-W", spec.width, "-H", spec.height, "-s", spec.steps, "-g", spec.guidance_scale);
  if (spec.sampler) words.push("--sampler", quoted(spec.sampler));
  words.push("--seed", spec.seed);
  if (spec.start) words.push("-i", quoted(picture || "PICTURE"), "--strength", spec.start.strength);
  spec.references?.forEach((_, place) => words.push("--ref", quoted(shown[place] ?? "PICTURE")));
  if (spec.mask) words.push("--mask", "MASK");
  for (const one of spec.controls ?? []) words.push("--control", quoted(`${one.kind}=${control || "PICTURE"}:${one.scale}`), "--control-model", quoted(one.model));
  if (spec.hires) words.push("--hires", spec.hires.scale, "--hires-strength", spec.hires.strength, "--hires-steps", spec.hires.steps);
  if (spec.upscale) words.push("--upscale", spec.upscale.scale);
  if (spec.upscale || spec.hires) words.push("--upscaler", quoted(spec.upscale?.model ?? spec.hires.upscaler));
  if (spec.negative_prompt) words.push(`--negative=${quoted(spec.negative_prompt)}`);
  if (spec.clip_skip > 1) words.push("--clip-skip", spec.clip_skip);
  if (spec.guidance_rescale) words.push("--guidance-rescale", spec.guidance_rescale);
  if (spec.true_cfg_scale > 1) words.push("--true-cfg", spec.true_cfg_scale);
  if (spec.refiner) words.push("--refiner", quoted(spec.refiner.model), "--refiner-switch", spec.refiner.switch);
  if (spec.wildcards) words.push("--wildcards");
  if (spec.lora_missing === "skip") words.push("--lora-missing", "skip");
  if (spec.prompt === "-") return `printf %s - | craft generate ${words.join(" ")}`;
  if (spec.prompt.startsWith("-")) return `craft generate ${words.join(" ")} -- ${quoted(spec.prompt)}`;
  return `craft generate ${quoted(spec.prompt)} ${words.join(" ")}`;
}

/** Where the clipboard may not be written (a page without TLS), the old way. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const isDone = document.execCommand("copy");
    area.remove();
    return isDone;
  }
}
