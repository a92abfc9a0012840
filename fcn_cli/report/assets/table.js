// The table of photos: rows in parts, of which only those that are needed are loaded.
"use strict";

fcnReport.Table = class {
  constructor({ name, rows, part }) {
    this.name = name;
    this.rows = rows;
    this.part = part;
    this.parts = new Array(Math.ceil(rows / part));
  }

  get(column, row) {
    return this.parts[Math.floor(row / this.part)][column][row % this.part];
  }

  // The value in the flat list [class, value, class, value, …] of a row, or 0.
  ofClass(column, row, id) {
    const pairs = this.get(column, row);
    for (let at = 0; at < pairs.length; at += 2) if (pairs[at] === id) return pairs[at + 1];
    return 0;
  }

  share(row, id) {
    return this.ofClass("classes", row, id) / (this.get("width", row) * this.get("height", row));
  }

  // The classes of a row with their pixels, the largest first.
  classesOf(row) {
    const pairs = this.get("classes", row);
    const found = [];
    for (let at = 0; at < pairs.length; at += 2) found.push([pairs[at], pairs[at + 1]]);
    return found.sort((a, b) => b[1] - a[1]);
  }

  async loadRows(rows) {
    const wanted = new Set(Array.from(rows, (row) => Math.floor(row / this.part)));
    await Promise.all(Array.from(wanted, (part) => this.#loadPart(part)));
  }

  async loadAll(progress) {
    const missing = [...this.parts.keys()].filter((part) => !this.parts[part]);
    let done = this.parts.length - missing.length;
    const worker = async () => {
      while (missing.length) {
        await this.#loadPart(missing.shift());
        done += 1;
        progress(done / this.parts.length);
      }
    };
    await Promise.all(Array.from({ length: 6 }, worker));
  }

  async #loadPart(part) {
    if (!this.parts[part]) {
      const name = `${this.name}-${part}`;
      this.parts[part] = await fcnReport.load(name, `${fcnReport.data.base}/${name}.js`);
    }
  }
};
