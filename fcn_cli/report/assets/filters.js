// Which images are shown, and in which order.
"use strict";

fcnReport.Filters = class {
  constructor(table) {
    this.table = table;
  }

  // What an order goes by: its value of a row (null: unknown, which comes last), and which way it goes at first.
  order(sort, cell = null) {
    const { table } = this;
    const { className, cellName, percent } = fcnReport;
    if (sort === "cell") {
      return { value: (row) => table.inCell(row, cell) / table.area(row), descending: true, show: (v) => `${cellName(cell)}: ${percent(v)} of the pixels` };
    }
    if (sort.startsWith("class-")) {
      const id = Number(sort.slice(6));
      if (fcnReport.data.page === "evaluation") {
        return { value: (row) => table.of("ious", row, id), descending: false, show: (v) => `IoU ${percent(v)}` };
      }
      return { value: (row) => table.share(row, id), descending: true, show: (v) => `${className(id)} ${percent(v)}` };
    }
    const column = (name) => (row) => table.get(name, row);
    return {
      name: { value: column("name"), descending: false, show: null },
      confidence: { value: column("confidence"), descending: false, show: (v) => `confidence ${v.toFixed(3)}` },
      finished: { value: column("finished"), descending: true, show: fcnReport.timeText },
      seconds: { value: column("seconds"), descending: true, show: (v) => `${v.toFixed(2)} s` },
      iou: { value: column("iou"), descending: false, show: (v) => `mean IoU ${percent(v)}` },
      accuracy: { value: column("accuracy"), descending: false, show: (v) => `${percent(v)} of the pixels right` },
    }[sort];
  }

  // Without a filter, and in the order of the table, no part of it is needed to know which rows to show.
  isPlain({ text, id, cell, sort }) {
    return !text && id === null && cell === null && sort === fcnReport.data.tableOrder;
  }

  // The rows to show, in order, or null once they are not wanted any more. Loads what it needs.
  async rows(state, isWanted, progress) {
    const { slices } = fcnReport;
    const all = new Uint32Array(this.table.rows);
    for (let row = 0; row < all.length; row += 1) all[row] = row;
    if (this.isPlain(state)) return state.reverse ? all.reverse() : all;
    await this.table.loadAll(progress);
    const { value, descending } = this.order(state.sort, state.cell);
    const inTableOrder = state.sort === fcnReport.data.tableOrder;
    const values = new Array(inTableOrder ? 0 : this.table.rows);
    let count = 0;
    for (let row = 0; row < this.table.rows; row += 1) {
      if (row % 256 === 0 && slices.isOver()) {
        await slices.next();
        if (!isWanted()) return null;
      }
      if (!this.#matches(row, state)) continue;
      if (!inTableOrder) values[row] = value(row);
      all[count] = row;
      count += 1;
    }
    const kept = all.subarray(0, count);
    const back = descending !== state.reverse;
    if (inTableOrder) return back ? kept.reverse() : kept;
    return this.#sorted(kept, isWanted, (a, b) => {
      const x = values[a], y = values[b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (x < y ? -1 : x > y ? 1 : 0) * (back ? -1 : 1) || a - b;
    });
  }

  // A merge sort in slices.
  async #sorted(rows, isWanted, compare) {
    const { slices } = fcnReport;
    const FIRST = 512;
    for (let from = 0; from < rows.length; from += FIRST) {
      rows.subarray(from, from + FIRST).sort(compare);
      if (slices.isOver()) await slices.next();
    }
    let source = rows, target = new Uint32Array(rows.length);
    for (let width = FIRST; width < rows.length; width *= 2) {
      for (let from = 0; from < rows.length; from += 2 * width) {
        const middle = Math.min(from + width, rows.length), end = Math.min(from + 2 * width, rows.length);
        let left = from, right = middle;
        for (let at = from; at < end; at += 1) {
          const takesLeft = left < middle && (right >= end || compare(source[left], source[right]) <= 0);
          target[at] = takesLeft ? source[left] : source[right];
          if (takesLeft) left += 1;
          else right += 1;
          if (at % 1024 === 0 && slices.isOver()) await slices.next();
        }
      }
      if (!isWanted()) return null;
      [source, target] = [target, source];
    }
    return source;
  }

  #matches(row, { text, id, cell, least }) {
    if (text && !this.table.get("name", row).toLowerCase().includes(text)) return false;
    if (cell !== null && this.table.inCell(row, cell) <= 0) return false;
    if (id === null) return true;
    const share = this.table.share(row, id);
    return share > 0 && share >= least;
  }
};

fcnReport.timeText = (seconds) => new Date(1000 * seconds).toISOString().replace("T", " ").replace(".000Z", " UTC");
