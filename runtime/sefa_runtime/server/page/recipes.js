// Commands that make elsewhere what the page shows.

import { editBody, hasToken, imageAddress } from "./api.js";
import { labelKey } from "./state.js";

/** The image by curl. */
export function curlRecipe(drawing) {
  const address = new URL(imageAddress(drawing, { format: "png" }), location.href);
  return `curl -o ${quote(`${drawing.model}.png`)} ${quote(address.href)}${authorization()}`;
}

/** A sweep by curl. */
export function sweepRecipe(drawing, options, fileName) {
  const address = new URL(`models/${encodeURIComponent(drawing.model)}/edit`, location.href);
  const body = quote(JSON.stringify(editBody(drawing, options)));
  return `curl -o ${quote(fileName)} ${quote(address.href)} -H 'Content-Type: application/json'${authorization()} -d ${body}`;
}

/**
 * The image by sefa_runtime, from the model's file.
 * @param {string | null} codeFile Name of the file that the code is from.
 * @param {number} codeNumber Which of its codes, from 0.
 */
export function pythonRecipe(drawing, codeFile, codeNumber) {
  const several = drawing.labels !== null && drawing.labels.each.length > 1;
  const images = several ? "grid, save_image" : "save_image";
  const lines = ["from pathlib import Path", "import sefa_runtime", `from sefa_runtime.images import ${images}`];
  if (drawing.code !== null) lines.splice(2, 0, "from sefa_runtime.inputs.code_files import load_codes");
  lines.push("", `editor = sefa_runtime.load(${python(`${drawing.model}.onnx`)})`);
  const given = [];
  if (drawing.code === null) given.push(`seed=${drawing.seed}`);
  else {
    lines.push(`codes = load_codes(Path(${python(codeFile)}), editor.info.latent_shape)[${codeNumber}]`);
    given.push(`${drawing.code.input}=codes`);
  }
  if (drawing.edits.size) given.push(`edits={${[...drawing.edits].map(([index, alpha]) => `${index}: ${alpha}`).join(", ")}}`);
  if (drawing.labels !== null) given.push(`label=${python(several ? drawing.labels.each : drawing.labels.each[0])}`);
  if (drawing.truncation !== null) given.push(`truncation=${drawing.truncation}`);
  if (several) lines.push(`images = editor.edit(${given.join(", ")})`, "image = grid(images[None])");
  else lines.push(`image = editor.edit(${given.join(", ")})[0]`);
  lines.push(`save_image(image, Path(${python(`${drawing.model}.png`)}))`);
  return lines.join("\n");
}

/** The image by `sefa edit`, from the model's file. */
export function sefaRecipe(drawing, codeFile) {
  const words = ["sefa edit", quote(`${drawing.model}.onnx`), "-o", quote(`${drawing.model}.png`)];
  words.push(...(drawing.code === null ? ["--seed", drawing.seed] : ["--codes", quote(codeFile)]));
  for (const [index, alpha] of drawing.edits) words.push("--edit", `${index}=${alpha}`);
  if (drawing.labels !== null) words.push(`--${labelKey(drawing.labels)}`, quote(drawing.labels.text));
  if (drawing.truncation !== null) words.push("--truncation", drawing.truncation);
  return words.join(" ");
}

/** What makes the user's names the model's own. */
export function nameRecipe(model, own) {
  const changes = [...own].map(([index, name]) => quote(`${index}=${name}`));
  return ["sefa name", quote(`${model}.onnx`), ...changes].join(" ");
}

/** A word as a POSIX shell takes it. */
function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function python(value) {
  return Array.isArray(value) ? `[${value.map(python).join(", ")}]` : JSON.stringify(value);
}

function authorization() {
  return hasToken() ? ' -H "Authorization: Bearer $SEFA_TOKEN"' : "";
}
