/* What a page of `auditkit report` checks by itself, in its reader's browser: the signature of the
 * statement that it holds (check 2 of `auditkit verify`), and size and SHA-256 of every file that
 * the statement lists (check 3). Nothing leaves the browser: the page's Content-Security-Policy
 * forbids every connection, and allows no script but these very bytes.
 *
 * The first half knows no page, and is tested by itself; `start` is the page.
 */
"use strict";

/** Bytes that are read at a time: a file may be larger than the memory. */
const SLICE_BYTES = 8 * 2 ** 20;

/** Files up to this are read as a whole and left to the browser's own SHA-256, which is faster. */
const WHOLE_BYTES = 64 * 2 ** 20;

/** Entries of a dropped folder that are looked at, as `auditkit verify` does. */
const MAX_ENTRIES = 200000;

/** Folders with a manifest that are tried, where more was chosen than a run's folder. */
const MAX_FOLDERS = 20;

/** What no check of this script says, beside every line that says that something is good. */
const NOT_SHOWN =
  "This says nothing of the numbers, pictures and verdicts shown on this page: none of them is " +
  "under the signature.";

/** Lines of findings that are shown. */
const MAX_SHOWN = 50;

/** What lies beside a manifest that cannot list it, because it is made from it. */
const COMPANION = new RegExp(
  "^(manifest\\.json|signer\\.pub|CHECKLIST\\.md|report\\.json|replay\\.json" +
    "|countersign-[0-9a-f]{16}\\.json|replay-[0-9a-f]{16}-[0-9]{8}T[0-9]{12}Z\\.json)$",
);

// SHA-256 (FIPS 180-4), piece by piece: WebCrypto digests only what is in memory as a whole.

const ROUNDS = Int32Array.of(
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
);

class Sha256 {
  #state = Int32Array.of(
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
  );
  #words = new Int32Array(64);
  #rest = new Uint8Array(64); // bytes that do not fill a block yet
  #nRest = 0;
  #nBytes = 0;

  /** Digest more bytes. */
  update(bytes) {
    this.#nBytes += bytes.length;
    let at = 0;
    if (this.#nRest > 0) {
      at = Math.min(64 - this.#nRest, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#nRest);
      this.#nRest += at;
      if (this.#nRest < 64) return this;
      this.#block(this.#rest, 0);
      this.#nRest = 0;
    }
    for (; at + 64 <= bytes.length; at += 64) this.#block(bytes, at);
    this.#rest.set(bytes.subarray(at));
    this.#nRest = bytes.length - at;
    return this;
  }

  /** The digest of all bytes, 32 of them; nothing can be added afterwards. */
  digest() {
    const nBytes = this.#nBytes;
    const tail = new Uint8Array((this.#nRest < 56 ? 64 : 128) - this.#nRest);
    tail[0] = 0x80;
    const end = new DataView(tail.buffer, tail.length - 8);
    end.setUint32(0, Math.floor(nBytes / 2 ** 29)); // a count of bits has 64 of them
    end.setUint32(4, (nBytes % 2 ** 29) * 8);
    this.update(tail);
    const found = new DataView(new ArrayBuffer(32));
    this.#state.forEach((word, n) => found.setInt32(4 * n, word));
    return new Uint8Array(found.buffer);
  }

  #block(bytes, start) {
    const w = this.#words;
    for (let n = 0, at = start; n < 16; n++, at += 4) {
      w[n] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let n = 16; n < 64; n++) {
      const x = w[n - 15];
      const y = w[n - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[n] = (w[n - 16] + s0 + w[n - 7] + s1) | 0;
    }
    const state = this.#state;
    let a = state[0], b = state[1], c = state[2], d = state[3]; // one by one: twice as fast
    let e = state[4], f = state[5], g = state[6], h = state[7];
    for (let n = 0; n < 64; n++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[n] + w[n]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    state[0] += a; // modulo 2 ** 32, as the array holds it
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
  }
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}

function joined(...pieces) {
  const whole = new Uint8Array(pieces.reduce((total, piece) => total + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

// The statement and its signature

/** Kinds of keys: their names in OpenSSH's format, and what WebCrypto calls them. */
const KINDS = {
  Ed25519: {
    names: ["ssh-ed25519"],
    key: { name: "Ed25519" },
    signature: { name: "Ed25519" },
  },
  "P-256": {
    names: ["ecdsa-sha2-nistp256", "nistp256"],
    key: { name: "ECDSA", namedCurve: "P-256" },
    signature: { name: "ECDSA", hash: "SHA-256" },
  },
};

/**
 * What the page holds: the `statement` (its exact bytes), `type`, `signature`, `kind`, `key`, and
 * the signature as the manifest has it (`recorded`).
 */
async function unpacked(data) {
  const deflated = new Blob([fromBase64(data.statement)]).stream();
  const inflated = deflated.pipeThrough(new DecompressionStream("deflate"));
  return {
    statement: new Uint8Array(await new Response(inflated).arrayBuffer()),
    type: data.type,
    signature: fromBase64(data.signature),
    recorded: fromBase64(data.recorded),
    kind: KINDS[data.kind],
    key: fromBase64(data.key),
  };
}

/** OpenSSH's fingerprint of the key, as `ssh-keygen -lf` prints it. */
function fingerprint(signed) {
  const names = signed.kind.names.map((name) => new TextEncoder().encode(name));
  const parts = [...names, signed.key].flatMap((part) => [[0, 0, 0, part.length], part]);
  const digest = new Sha256().update(joined(...parts)).digest();
  return "SHA256:" + btoa(String.fromCharCode(...digest)).replace(/=+$/, "");
}

/** Whether a typed fingerprint is this one; null where nothing, or the begin of one, is typed. */
function isSame(typed, found) {
  const bare = typed.replace(/\s+/g, "").replace(/^SHA256:/i, "");
  if (bare.length < 43 && found.slice(7).startsWith(bare)) return null;
  return bare === found.slice(7);
}

/** Whether the key signed the statement: "good", "bad", or why that cannot be said. */
async function judged(signed, subtle) {
  if (!subtle) return "no-webcrypto";
  const type = new TextEncoder().encode(signed.type);
  const head = `DSSEv1 ${type.length} ${signed.type} ${signed.statement.length} `;
  const message = joined(new TextEncoder().encode(head), signed.statement);
  let key;
  try {
    key = await subtle.importKey("raw", signed.key, signed.kind.key, false, ["verify"]);
  } catch (error) {
    return error.name === "NotSupportedError" ? "no-ed25519" : "bad";
  }
  const isGood = await subtle.verify(signed.kind.signature, key, signed.signature, message);
  return isGood ? "good" : "bad";
}

// What was signed, in the statement's own words

/** What a plan, or a recording, says of itself: names and values, those that there are. */
function signedFacts(statement) {
  const { plan = {}, ...told } = parsed(statement).predicate;
  const worded = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const valued = ([name, value]) => `${name}=${worded(value)}`;
  const perturbation = ({ name, parameters }) => {
    const values = Object.entries(parameters ?? {}).map(valued);
    return values.length ? `${name} (${values.join(", ")})` : name;
  };
  const { target, command } = told.program ?? {};
  const forks = [plan.fork_at, ...(plan.further_forks ?? [])].join(", ");
  const facts = {
    "statement SHA-256": hex(new Sha256().update(statement).digest()),
    program: target || (command ?? []).join(" "),
    seeds: plan.seeds?.join(", "),
    seed: told.seed == null ? "" : `${told.seed}`,
    perturbations: plan.perturbations?.map(perturbation).join("; "),
    "fork, window, horizon": plan.seeds && `${forks}; ${plan.window}; ${plan.horizon}`,
    processes: told.world && `${told.world.size}`,
  };
  return Object.entries(facts).filter(([, value]) => value);
}

/** Whether the page names the digest of what it holds, in a sentence. */
function named(found, shown) {
  if (found === shown) return ["muted", "The last section of this page names the same SHA-256."];
  return ["bad", `The last section of this page names another SHA-256: ${shown || "none"}.`];
}

function parsed(statement) {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(statement));
}

// The files

/** The files that a statement lists, by name, with `size` and `sha256`. */
function listedFiles(statement) {
  const told = parsed(statement);
  const digests = new Map(told.subject.map((item) => [item.name, item.digest.sha256]));
  const sizes = told.predicate.files.map((file) => [file.name, Number(file.size)]);
  return new Map(sizes.map(([name, size]) => [name, { size, sha256: digests.get(name) }]));
}

/** Files of the run by name, of all that was chosen: the run's folder may lie in that. */
function insideRun(chosen, listed) {
  const all = new Map(chosen.map(({ path, file }) => [path, file]));
  const paths = Array.from(all.keys());
  const first = paths[0].slice(0, paths[0].indexOf("/") + 1);
  const folders = [paths.every((path) => path.startsWith(first)) ? first : ""];
  const manifests = paths.filter((path) => path.endsWith("/manifest.json")).slice(0, MAX_FOLDERS);
  folders.push(...manifests.map((path) => path.slice(0, -"manifest.json".length)));
  const names = Array.from(listed.keys());
  const held = folders.map((folder) => names.filter((name) => all.has(folder + name)).length);
  const folder = folders[held.indexOf(Math.max(...held))];
  const inside = paths.filter((path) => path.startsWith(folder));
  return new Map(inside.map((path) => [path.slice(folder.length), all.get(path)]));
}

/** SHA-256 of a file in hexadecimal digits; `onRead` is told of every piece that was read. */
async function fileSha256(file, onRead, subtle = globalThis.crypto?.subtle) {
  if (subtle && file.size <= WHOLE_BYTES) {
    const whole = await file.arrayBuffer();
    onRead(whole.byteLength);
    return hex(new Uint8Array(await subtle.digest("SHA-256", whole)));
  }
  const digest = new Sha256();
  for (let at = 0; at < file.size; at += SLICE_BYTES) {
    const piece = new Uint8Array(await file.slice(at, at + SLICE_BYTES).arrayBuffer());
    digest.update(piece);
    onRead(piece.length);
  }
  return hex(digest.digest());
}

/** What is wrong with a file: its kind and a sentence; null where nothing is. */
async function examined(name, listed, file, onRead) {
  if (!file) return ["missing", `${name}: missing`];
  if (file.size !== listed.size) {
    return ["edited", `${name}: ${file.size} bytes, the manifest says ${listed.size}`];
  }
  let found;
  try {
    found = await fileSha256(file, onRead);
  } catch (error) {
    return ["unreadable", `${name}: cannot be read (${error.name})`];
  }
  if (found === listed.sha256) return null;
  return ["edited", `${name}: SHA-256 is ${found}, the manifest says ${listed.sha256}`];
}

/** What is wrong with the manifest.json of a folder: its kind and a sentence; null if nothing. */
async function examinedManifest(file, signed) {
  const isSame = (found, held) =>
    found.length === held.length && found.every((byte, n) => byte === held[n]);
  const bytes = (text) => fromBase64(text.replaceAll("-", "+").replaceAll("_", "/"));
  try {
    const { payload, payloadType, signatures } = JSON.parse(await file.text());
    if (!isSame(bytes(payload), signed.statement) || payloadType !== signed.type) {
      return ["of another study", "manifest.json: another statement than the one in this page"];
    }
    if (signatures.some(({ sig }) => isSame(bytes(sig), signed.recorded))) return null;
    return ["otherwise signed", "manifest.json: without the signature that this page holds"];
  } catch {
    return ["malformed", "manifest.json: no manifest, or it cannot be read"];
  }
}

/**
 * Check 3: what was found; null where nobody waits for it any more.
 *
 * @param signed What the page holds.
 * @param chosen Everything that the reader gave, each with `path` and `file`.
 * @param onProgress Told how many bytes are done, of how many.
 * @param isStale Whether nobody waits any more.
 */
async function checkedFiles(signed, chosen, onProgress = () => {}, isStale = () => false) {
  const listed = listedFiles(signed.statement);
  const files = insideRun(chosen, listed);
  const total = Array.from(listed.values()).reduce((sum, file) => sum + file.size, 0);
  const kinds = new Map();
  const wrong = [];
  const note = (kind, words) => {
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    wrong.push(words);
  };
  let done = 0;
  for (const [name, file] of listed) {
    if (isStale()) return null;
    let read = 0;
    const found = await examined(name, file, files.get(name), (n) => {
      read += n;
      onProgress(done + read, total);
    });
    done += file.size;
    onProgress(done, total);
    if (found) note(...found);
  }
  const manifest = files.get("manifest.json");
  const found = manifest ? await examinedManifest(manifest, signed) : null;
  if (found) note(...found);
  const isKnown = (name) => listed.has(name) || COMPANION.test(name);
  const unlisted = Array.from(files.keys()).filter((name) => !isKnown(name));
  return {
    nFiles: listed.size,
    nBytes: total,
    kinds: Object.fromEntries(kinds),
    wrong,
    unlisted,
    hasManifest: Boolean(manifest),
  };
}

/** Check 3 in a sentence, with what the style sheet calls it. */
function summary(found, isSigned) {
  const counted = Object.entries(found.kinds).map(([kind, n]) => `${n} ${kind}`);
  if (found.kinds.missing === found.nFiles) {
    const which = "choose the folder that holds manifest.json; an archive is unpacked first";
    return ["bad", `Check 3 failed: none of ${found.nFiles} listed files is there; ${which}.`];
  }
  if (counted.length) return ["bad", `Check 3 failed: ${counted.join(", ")}.`];
  const bytes = found.nBytes.toLocaleString("en");
  const all = `size and SHA-256 of all ${found.nFiles} files (${bytes} bytes) are as listed`;
  if (!isSigned) return ["open", `In this page's list, ${all}; but who signed that list is open.`];
  if (!found.hasManifest) {
    return ["open", `Check 3 is open: ${all}; but manifest.json is missing from the folder.`];
  }
  const more = found.unlisted.length;
  if (!more) return ["good", `Check 3 passed: ${all}. ${NOT_SHOWN}`];
  const lie = more === 1 ? "1 file lies" : `${more} files lie`;
  return ["open", `Check 3 passed with a warning: ${all}; ${lie} there unlisted.`];
}

// The page

const SIGNATURE = {
  good: ["good", `It signed the statement in this page: the signature is good. ${NOT_SHOWN}`],
  bad: ["bad", "Check 2 failed: this key did not sign the statement in this page."],
  "no-webcrypto": [
    "open",
    "Not checked: for a page that came over an unsafe connection browsers have no WebCrypto. " +
      "Save the page and open the file.",
  ],
  "no-ed25519": [
    "open",
    "Not checked: this browser has no Ed25519. Chrome and Edge from 137, Firefox from 129 and " +
      "Safari from 17 have it; so does auditkit verify.",
  ],
};

const INSTEAD = "Drop the folder on the field itself, or choose it there.";

/** Check 2 in a sentence: whether the key is the one whose fingerprint was typed. */
function whose(isTyped, isSigned) {
  if (isTyped === null) return ["open", "Check 2 is open until a whole fingerprint is typed here."];
  if (!isTyped) return ["bad", "Check 2 failed: that is the fingerprint of another key."];
  if (!isSigned) return ["open", "That is this key, but its signature is not shown to be good."];
  const passed = "Check 2 passed: the key of this fingerprint signed the statement in this page.";
  return ["good", `${passed} ${NOT_SHOWN}`];
}

/** A name as it can be shown: what would change how the rest is read is an escape. */
function printable(line) {
  return line.replace(/\p{C}/gu, (char) => `\\u{${char.codePointAt(0).toString(16)}}`);
}

/** All files of what was dropped, folders in folders included. */
async function dropped(transfer) {
  // asked for before anything is waited for: afterwards they are gone
  const waiting = Array.from(transfer.items, (item) => item.webkitGetAsEntry()).filter(Boolean);
  const found = [];
  while (waiting.length && found.length < MAX_ENTRIES) {
    const entry = waiting.pop();
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ path: entry.fullPath.slice(1), file });
      continue;
    }
    const reader = entry.createReader();
    let some;
    do {
      some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      waiting.push(...some); // a hundred at a time
    } while (some.length);
  }
  return found;
}

/** Checks the page's own signature, and the folder that its reader gives. */
async function start(document) {
  const part = (name) => document.getElementById(`self-check-${name}`);
  const say = (name, [kind, words]) => {
    part(name).className = kind;
    part(name).textContent = words;
  };
  const list = (name, lines) => {
    const more = lines.length - MAX_SHOWN;
    const shown = more > 0 ? [...lines.slice(0, MAX_SHOWN), `and ${more} more`] : lines;
    part(name).replaceChildren(
      ...shown.map((line) => {
        const item = document.createElement("li");
        item.textContent = printable(line);
        return item;
      }),
    );
  };

  const signed = await unpacked(part("on").dataset);
  part("off").hidden = true;
  part("on").hidden = false;
  const key = fingerprint(signed);
  part("key").textContent = key;
  const facts = signedFacts(signed.statement);
  list("signed", facts.map(([name, value]) => `${name}: ${value}`));
  say("digest", named(facts[0][1], document.getElementById("statement-sha256")?.textContent));
  const isSigned = judged(signed, globalThis.crypto?.subtle).then((state) => {
    say("signature", SIGNATURE[state]);
    if (state === "bad") list("signed", []); // words that this key did not sign
    return state === "good";
  });
  const compare = async () => say("whose", whose(isSame(part("typed").value, key), await isSigned));
  part("typed").addEventListener("input", compare);
  await compare();

  let nGiven = 0;
  const check = async (given) => {
    const number = ++nGiven;
    const isStale = () => number !== nGiven;
    const bar = part("progress");
    list("found", []);
    bar.value = 0;
    bar.hidden = false;
    say("files", ["muted", "Reading ..."]);
    try {
      const chosen = await given;
      if (!chosen.length) {
        say("files", ["open", "There is no file in that."]);
        return;
      }
      const onProgress = (done, total) => {
        if (!isStale()) bar.value = total ? done / total : 1;
      };
      const found = await checkedFiles(signed, chosen, onProgress, isStale);
      if (!found || isStale()) return;
      say("files", summary(found, await isSigned));
      const unlisted = found.unlisted.map((name) => `${name}: not listed`);
      list("found", [...found.wrong, ...unlisted]);
    } catch (error) {
      // Chromium keeps a page that was opened from a file from reading what is dropped beside it
      const why = `Not checked: what was dropped cannot be read here (${error.name}). ${INSTEAD}`;
      if (!isStale()) say("files", ["bad", why]);
    } finally {
      if (!isStale()) bar.hidden = true;
    }
  };
  const folder = part("folder");
  folder.webkitdirectory = true; // every browser has it, and no validator of HTML
  folder.addEventListener("change", () => {
    const files = Array.from(folder.files, (file) => ({ path: file.webkitRelativePath, file }));
    folder.value = ""; // so that the same folder can be chosen again
    check(Promise.resolve(files));
  });
  // beside the field, which takes a folder by itself, a browser would open what nobody takes
  document.addEventListener("dragover", (event) => {
    if (event.target !== folder) event.preventDefault();
  });
  document.addEventListener("drop", (event) => {
    if (event.target === folder) return;
    event.preventDefault();
    check(dropped(event.dataTransfer));
  });
  document.documentElement.dataset.selfCheck = "ready";
}

if (typeof document !== "undefined") {
  start(document);
} else {
  module.exports = { Sha256, hex, unpacked, fingerprint, isSame, judged, whose, insideRun };
  Object.assign(module.exports, { fileSha256, checkedFiles, summary, COMPANION });
  Object.assign(module.exports, { signedFacts, named, NOT_SHOWN });
}
