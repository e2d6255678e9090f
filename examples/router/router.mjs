// The router of an experiment for JavaScript (node, Deno, Bun): no packages.
//
//     node examples/router/router.mjs examples/router/vectors.json
//
// checks it against the vectors. The algorithm in words is in that file.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

const SLOTS = 10000n;

/** Where a key lies in an experiment: a number in [0, 2**53), exact. */
export function point(experiment, key) {
  // TextEncoder writes U+FFFD for a surrogate without its other half.
  const data = new TextEncoder().encode(`${experiment}\0${key}`);
  return Number(createHash("sha256").update(data).digest().readBigUInt64BE(0) >> 11n);
}

/** The slot of a point, in [0, 10000). */
export function slot(point) {
  return Number((BigInt(point) * SLOTS) >> 53n);
}

/** A router of an `experiment_started` or `experiment_changed` event: key -> arm. */
export function router({ experiment, ranges }) {
  return (key) => {
    const s = slot(point(experiment, key));
    return ranges.find(([end]) => s < end)[1];
  };
}

if (process.argv[2] !== undefined) {
  const { ranges, vectors } = JSON.parse(readFileSync(process.argv[2], "utf8"));
  const tables = Object.values(ranges);
  let wrong = 0;
  for (const [experiment, key, ...expected] of vectors) {
    const p = point(experiment, key);
    const got = [p, slot(p), ...tables.map((r) => router({ experiment, ranges: r })(key))];
    if (JSON.stringify(got) !== JSON.stringify(expected)) {
      wrong += 1;
      console.error(`${JSON.stringify([experiment, key])}: ${got}, expected ${expected}`);
    }
  }
  console.log(`${vectors.length - wrong} of ${vectors.length} vectors agree`);
  process.exit(wrong || !vectors.length ? 1 : 0);
}
