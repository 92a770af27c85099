// Runs what the page's script exports on the data of a page and on folders of real files.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

const [script, dataFile, ...folders] = process.argv.slice(2);
const check = require(path.resolve(script));

function* filesBelow(place, prefix) {
  for (const entry of fs.readdirSync(place, { withFileTypes: true })) {
    const name = `${prefix}/${entry.name}`;
    if (entry.isDirectory()) yield* filesBelow(path.join(place, entry.name), name);
    else yield { path: name, file: new Blob([fs.readFileSync(path.join(place, entry.name))]) };
  }
}

async function main() {
  const signed = await check.unpacked(JSON.parse(fs.readFileSync(dataFile, "utf8")));
  const state = await check.judged(signed, crypto.subtle);
  const results = [];
  for (const folder of folders) {
    const chosen = Array.from(filesBelow(folder, path.basename(folder)));
    const steps = [];
    const found = await check.checkedFiles(signed, chosen, (...step) => steps.push(step));
    const [kind, words] = check.summary(found, state === "good");
    results.push({ kind, words, ...found, steps });
  }
  const key = check.fingerprint(signed);
  const facts = Object.fromEntries(check.signedFacts(signed.statement));
  process.stdout.write(JSON.stringify({ state, key, facts, results }));
}

main();
