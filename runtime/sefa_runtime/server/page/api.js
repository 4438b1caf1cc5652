// Requests to the server that the page came from.

import { labelKey } from "./state.js";

const TOKEN = "sefa.token";

/** An answer that is an error, or none at all. */
export class ApiError extends Error {
  /**
   * @param {string} message In plain words.
   * @param {number} status Of HTTP; 0 if the server did not answer.
   * @param {number | null} retryAfterS Seconds after which the server may answer.
   */
  constructor(message, status, retryAfterS = null) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }

  /** Whether asking again may help. */
  get passing() {
    return this.status === 0 || this.status === 503;
  }
}

export function saveToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

/** Whether requests carry a token. */
export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

export async function listModels() {
  return (await (await ask("models")).json()).models;
}

export async function describeModel(name) {
  return (await ask(`models/${encodeURIComponent(name)}`)).json();
}

/**
 * The address of one image, relative to the page.
 * @param {Drawing} drawing Of a seed; see state.js.
 * @param {object} options format and scale.
 */
export function imageAddress(drawing, { format, scale = 1 }) {
  const query = new URLSearchParams({ seed: drawing.seed });
  for (const [index, alpha] of drawing.edits) query.append("edit", `${index}:${alpha}`);
  if (drawing.labels !== null) query.set(labelKey(drawing.labels), drawing.labels.text);
  if (drawing.truncation !== null) query.set("truncation", drawing.truncation);
  if (scale !== 1) query.set("scale", scale);
  query.set("format", format);
  // Colons and commas may stand in a query as they are, and are easier to read.
  return `models/${encodeURIComponent(drawing.model)}/image?${query.toString().replaceAll("%3A", ":").replaceAll("%2C", ",")}`;
}

/** The body of a request to `models/NAME/edit` for the same image. */
export function editBody(drawing, options) {
  const body = drawing.code === null ? { seeds: drawing.seed } : { [drawing.code.input]: drawing.code.values };
  if (drawing.edits.size) body.edits = Object.fromEntries(drawing.edits);
  if (drawing.labels !== null) {
    const { each, text } = drawing.labels;
    body[labelKey(drawing.labels)] = each.length === 1 ? each[0] : typeof each[0] === "string" ? text : each;
  }
  if (drawing.truncation !== null) body.truncation = drawing.truncation;
  return { ...body, ...options };
}

/** One image, as a Blob. */
export async function fetchImage(drawing, options, signal) {
  if (drawing.code !== null) return postEdit(drawing.model, editBody(drawing, options), signal);
  return (await ask(imageAddress(drawing, options), { signal })).blob();
}

/** What `models/NAME/edit` draws, as a Blob. */
export async function postEdit(model, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const address = `models/${encodeURIComponent(model)}/edit`;
  return (await ask(address, { method: "POST", headers, body: JSON.stringify(body), signal })).blob();
}

async function ask(address, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token === null ? options.headers : { ...options.headers, Authorization: `Bearer ${token}` };
  let response;
  try {
    response = await fetch(address, { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.", 0);
  }
  if (!response.ok) throw await readError(response);
  return response;
}

async function readError(response) {
  let message = "";
  try {
    message = String((await response.json()).error ?? "");
  } catch {
    // A proxy's own page, say.
  }
  const retryAfterS = Number.parseInt(response.headers.get("retry-after"), 10);
  const words = {
    503: message ? `The server cannot draw now: ${message}.` : "The server cannot draw now.",
    504: "The server took too long to draw this.",
  };
  const fallback = message ? `The server says: ${message}.` : `The server answered with error ${response.status}.`;
  return new ApiError(words[response.status] ?? fallback, response.status, Number.isNaN(retryAfterS) ? null : retryAfterS);
}
