// Which photos are shown, and in which order.
"use strict";

fcnReport.Filters = class {
  constructor(table) {
    this.table = table;
  }

  // What an order goes by: its value of a row (null: unknown, which comes last), and which way it goes at first.
  order(sort) {
    const table = this.table;
    if (sort.startsWith("class-")) {
      const id = Number(sort.slice(6));
      if (fcnReport.data.kind === "evaluation") {
        return { value: (row) => this.iouOf(row, id), descending: false, show: (v) => `IoU ${fcnReport.percent(v)}` };
      }
      return { value: (row) => table.share(row, id), descending: true, show: (v) => `${fcnReport.className(id)} ${fcnReport.percent(v)}` };
    }
    const column = (name) => (row) => table.get(name, row);
    return {
      name: { value: column("name"), descending: false, show: null },
      confidence: { value: column("confidence"), descending: false, show: (v) => `confidence ${v.toFixed(3)}` },
      finished: { value: column("finished"), descending: true, show: fcnReport.timeText },
      seconds: { value: column("seconds"), descending: true, show: (v) => `${v.toFixed(2)} s` },
      iou: { value: column("iou"), descending: false, show: (v) => `mean IoU ${fcnReport.percent(v)}` },
      accuracy: { value: column("accuracy"), descending: false, show: (v) => `${fcnReport.percent(v)} of the pixels right` },
    }[sort];
  }

  iouOf(row, id) {
    const pairs = this.table.get("ious", row);
    for (let at = 0; at < pairs.length; at += 2) if (pairs[at] === id) return pairs[at + 1];
    return null;
  }

  // Without a filter, and in the order of the table, no part of it is needed to know which rows to show.
  isPlain({ text, id, sort }) {
    return !text && id === null && sort === fcnReport.data.tableOrder;
  }

  // The rows to show, in order. Loads what it needs.
  async rows(state, progress) {
    const all = new Uint32Array(this.table.rows).map((_, row) => row);
    if (this.isPlain(state)) return state.reverse ? all.reverse() : all;
    await this.table.loadAll(progress);
    const kept = all.filter((row) => this.#matches(row, state));
    const { value, descending } = this.order(state.sort);
    const back = descending !== state.reverse;
    if (state.sort === fcnReport.data.tableOrder) return back ? kept.reverse() : kept;
    const values = new Map();
    for (const row of kept) values.set(row, value(row));
    return kept.sort((a, b) => {
      const x = values.get(a), y = values.get(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return (x < y ? -1 : x > y ? 1 : 0) * (back ? -1 : 1) || a - b;
    });
  }

  #matches(row, { text, id, least }) {
    if (text && !this.table.get("name", row).toLowerCase().includes(text)) return false;
    if (id === null) return true;
    const share = this.table.share(row, id);
    return share > 0 && share >= least;
  }
};

fcnReport.timeText = (seconds) => new Date(1000 * seconds).toISOString().replace("T", " ").replace(".000Z", " UTC");
