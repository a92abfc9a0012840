// The table of images: rows in parts, of which only those that are needed are loaded.
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

  // The value in the flat list [number, value, number, value, …] of a row, or null.
  of(column, row, wanted) {
    const pairs = this.get(column, row);
    for (let at = 0; at < pairs.length; at += 2) if (pairs[at] === wanted) return pairs[at + 1];
    return null;
  }

  area(row) {
    return this.get("width", row) * this.get("height", row);
  }

  share(row, id) {
    return (this.of("classes", row, id) ?? 0) / this.area(row);
  }

  // The pixels of a row in a cell of the confusion matrix.
  inCell(row, cell) {
    const [truth, predicted] = fcnReport.cellOf(cell);
    if (truth !== predicted) return this.of("mistakes", row, cell) ?? 0;
    let pixels = this.of("classes", row, truth) ?? 0;
    const mistakes = this.get("mistakes", row);
    for (let at = 0; at < mistakes.length; at += 2) if (fcnReport.cellOf(mistakes[at])[0] === truth) pixels -= mistakes[at + 1];
    return pixels;
  }

  // The classes of a row with their pixels, the largest first.
  classesOf(row) {
    const pairs = this.get("classes", row);
    const found = [];
    for (let at = 0; at < pairs.length; at += 2) found.push([pairs[at], pairs[at + 1]]);
    return found.sort((a, b) => b[1] - a[1]);
  }

  hasPicture(row) {
    return this.get("small", row) !== null;
  }

  hasLabels(row) {
    return this.get("grid", row) !== null;
  }

  // Where a file of a row is; its name ends in the hash of its content.
  path(row, what, suffix) {
    const { data } = fcnReport;
    const key = this.get("key", row);
    const middle = what in data.tags ? `${what}-${data.tags[what]}` : what;
    return `${data.pictures}/${key.slice(0, 2)}/${key}-${middle}-${this.get(what, row)}.${suffix}`;
  }

  // The row of a name. It may be where it was when somebody copied the address.
  async rowOf(name, hint, progress) {
    if (hint >= 0 && hint < this.rows) {
      await this.loadRows([hint]);
      if (this.get("name", hint) === name) return hint;
    }
    await this.loadAll(progress);
    for (let row = 0; row < this.rows; row += 1) {
      if (this.get("name", row) === name) return row;
      if (row % 1024 === 0 && fcnReport.slices.isOver()) await fcnReport.slices.next();
    }
    return null;
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
