// Style codes from files: numpy's .npy and .npz, and JSON.

// What writers call the codes, among other entries of an .npz.
const NAMES = ["codes", "w", "ws", "w_plus", "latent", "latents", "latent_codes", "projected_w"];
const NUMPY_MAGIC = "\x93NUMPY";

/**
 * Read the codes in a file.
 * @param {File} file
 * @param {number[]} shape Of one code: [L, D], or [D].
 * @returns {Promise<(number[] | number[][])[]>} One for each image, nested as `shape`.
 * @throws {Error} With a sentence for the user.
 */
export async function readCodes(file, shape) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const head = String.fromCharCode(...bytes.subarray(0, 6));
  let array;
  if (head === NUMPY_MAGIC) array = readNpy(bytes);
  else if (head.startsWith("PK")) array = readNpy(await findInArchive(bytes));
  else array = readJson(bytes);
  if (!array.values.every(Number.isFinite)) throw new Error("There are numbers in it that are not finite.");
  return fit(array, shape);
}

/** One code for each image; a single style code is the code of every layer. */
function fit({ values, shape: given }, shape) {
  const size = shape.reduce((product, length) => product * length, 1);
  const ends = (dimensions) => dimensions.length <= given.length && dimensions.every((length, at) => given.at(at - dimensions.length) === length);
  const rows = (from, length) => Array.from({ length }, (_, row) => [...values.slice(from + row * width, from + (row + 1) * width)]);
  const width = shape.at(-1);
  if (ends(shape) && given.length <= shape.length + 1) {
    return Array.from({ length: values.length / size }, (_, at) => {
      const code = rows(at * size, size / width);
      return shape.length === 1 ? code[0] : code;
    });
  }
  if (shape.length === 2 && ends([width]) && (given.length <= 2 || (given.length === 3 && given[1] === 1))) {
    return rows(0, values.length / width).map((row) => Array(shape[0]).fill(row));
  }
  if (shape.length === 1 && given.length === 3 && given[2] === width) {
    const codes = Array.from({ length: given[0] }, (_, at) => rows(at * given[1] * width, given[1]));
    if (codes.every((code) => code.every((row) => row.every((value, at) => value === code[0][at])))) {
      return codes.map((code) => code[0]);
    }
  }
  throw new Error(`Its numbers have the shape [${given.join(", ")}]; [N, ${shape.join(", ")}] was expected.`);
}

function readJson(bytes) {
  let nested;
  try {
    nested = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Error("This is no .npy, .npz or .json file.");
  }
  const shape = [];
  for (let level = nested; Array.isArray(level); level = level[0]) shape.push(level.length);
  const values = Array.isArray(nested) ? nested.flat(shape.length) : [];
  const count = shape.reduce((product, length) => product * length, 1);
  if (!values.length || values.length !== count || !values.every((value) => typeof value === "number")) {
    throw new Error("A list of numbers, or of lists of equal length, was expected.");
  }
  return { values, shape };
}

function readNpy(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const long = bytes[6] >= 2;
  const start = long ? 12 : 10;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(bytes.subarray(start, start + length));
  const kind = /'descr': '<f([48])'/.exec(header);
  const dimensions = /'shape': \(([\d, ]*)\)/.exec(header);
  if (!kind || !dimensions || !header.includes("'fortran_order': False")) {
    throw new Error("An array of float32 or float64 was expected, in C order.");
  }
  const shape = dimensions[1].split(",").filter((length) => length.trim()).map(Number);
  const Numbers = kind[1] === "4" ? Float32Array : Float64Array;
  const data = bytes.slice(start + length);
  const count = shape.reduce((product, length) => product * length, 1);
  if (!count || data.length < count * Numbers.BYTES_PER_ELEMENT) throw new Error("The file is damaged, or empty.");
  return { values: [...new Numbers(data.buffer, 0, count)], shape };
}

/** The bytes of the .npy file in an .npz that holds codes. */
async function findInArchive(bytes) {
  const entries = readDirectory(bytes).filter((entry) => entry.name.endsWith(".npy"));
  const named = NAMES.map((name) => entries.find((entry) => entry.name === `${name}.npy`)).find(Boolean);
  const entry = named ?? (entries.length === 1 ? entries[0] : undefined);
  if (entry === undefined) {
    throw new Error(entries.length ? `None of its arrays is called ${NAMES.join(", ")}.` : "This is no .npz file.");
  }
  const view = new DataView(bytes.buffer);
  const start = entry.offset + 30 + view.getUint16(entry.offset + 26, true) + view.getUint16(entry.offset + 28, true);
  const packed = bytes.subarray(start, start + entry.packedSize);
  if (entry.method === 0) return packed.slice();
  if (entry.method !== 8) throw new Error("It is packed in a way that this page cannot read.");
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

/** A zip file's central directory. */
function readDirectory(bytes) {
  const view = new DataView(bytes.buffer);
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end -= 1;
  if (end < 0) throw new Error("The file is damaged.");
  const entries = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0 && at + 46 <= end; left -= 1) {
    const nameLength = view.getUint16(at + 28, true);
    entries.push({
      name: new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength)),
      method: view.getUint16(at + 10, true),
      packedSize: view.getUint32(at + 20, true),
      offset: view.getUint32(at + 42, true),
    });
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return entries;
}
