// The large view: a photo, its classes drawn from the label grid, and the name of the class under the pointer.
"use strict";

fcnReport.Viewer = class {
  constructor(table, { step, closed }) {
    const { byId } = fcnReport;
    this.table = table;
    this.step = step;
    this.dialog = byId("viewer");
    this.stage = byId("stage");
    this.canvas = byId("viewer-layer");
    this.photo = byId("viewer-photo");
    this.grid = null;
    this.lit = null;
    this.view = fcnReport.data.views[0];
    this.probe = null;
    byId("viewer-close").addEventListener("click", () => this.dialog.close());
    byId("viewer-previous").addEventListener("click", () => step(-1));
    byId("viewer-next").addEventListener("click", () => step(1));
    byId("viewer-wipe").addEventListener("input", (event) => this.#wipe(Number(event.target.value)));
    byId("viewer-opacity").addEventListener("input", (event) => { this.canvas.style.opacity = event.target.value / 100; });
    byId("viewer-views").addEventListener("change", (event) => this.setView(event.target.value));
    this.dialog.addEventListener("close", () => closed(this.row));
    this.dialog.addEventListener("keydown", (event) => this.#pressed(event));
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.stage.addEventListener("pointermove", (event) => this.#pointed(event));
    this.stage.addEventListener("pointerdown", (event) => this.#pointed(event));
    this.stage.addEventListener("pointerleave", () => this.#unpoint());
    this.photo.addEventListener("error", () => this.#note("The large picture is missing; make the report again."));
  }

  get isOpen() {
    return this.dialog.open;
  }

  async open(row, place, views) {
    const { byId } = fcnReport;
    const first = !this.dialog.open;
    this.row = row;
    this.grid = null;
    this.lit = null;
    this.#unpoint();
    this.#describe(row, place);
    if (first) {
      this.dialog.showModal();
      byId("viewer-name").focus();
    }
    this.setView(first ? views.id : this.view.id);
    byId("probe-text").textContent = "Point at the picture: the class is named here.";
    if (this.table.get("has", row) & 2) await this.#loadGrid(row);
  }

  setView(id) {
    this.view = fcnReport.data.views.find((view) => view.id === id);
    for (const radio of fcnReport.byId("viewer-views").querySelectorAll("input")) radio.checked = radio.value === id;
    const alone = !(this.table.get("has", this.row) & 1);
    const opacity = alone ? 1 : this.view.opacity;
    fcnReport.byId("viewer-opacity").value = 100 * opacity;
    this.canvas.style.opacity = opacity;
    this.#draw();
  }

  nextView() {
    const views = fcnReport.data.views;
    this.setView(views[(views.indexOf(this.view) + 1) % views.length].id);
  }

  async #loadGrid(row) {
    const key = this.table.get("key", row);
    try {
      const grid = await fcnReport.load(key, fcnReport.imagePath(key, ".js"));
      fcnReport.forget(key);
      if (this.row !== row) return;
      const layers = {};
      for (const [name, runs] of Object.entries(grid.layers)) layers[name] = this.#decode(runs, grid.w * grid.h);
      if (layers.truth) layers.wrong = layers.truth.map((truth, at) => Number(truth !== 255 && truth !== layers.prediction[at]));
      this.grid = { width: grid.w, height: grid.h, layers };
      this.#draw();
    } catch {
      if (this.row === row) this.#note("The label grid is missing; make the report again.");
    }
  }

  #decode(runs, size) {
    const labels = new Uint8Array(size);
    let at = 0;
    for (let run = 0; run < runs.length; run += 2) {
      labels.fill(runs[run], at, at + runs[run + 1]);
      at += runs[run + 1];
    }
    return labels;
  }

  // Colours as a canvas has them: red, green, blue, alpha in the order of bytes.
  #colors() {
    const table = new Uint8ClampedArray(4 * 256);
    const opaque = this.view.opacity === 1 || !(this.table.get("has", this.row) & 1);
    for (let id = 0; id < 256; id += 1) {
      const hex = this.view.color ?? fcnReport.classColor(id);
      for (let part = 0; part < 3; part += 1) table[4 * id + part] = parseInt(hex.slice(1 + 2 * part, 3 + 2 * part), 16);
      let alpha = id === 0 && !opaque ? 0 : 255;
      if (id === 0 && this.view.color) alpha = 0;
      if (this.lit !== null && !this.view.color) alpha = id === this.lit ? 255 : opaque ? 40 : 0;
      table[4 * id + 3] = alpha;
    }
    return new Uint32Array(table.buffer);
  }

  #draw() {
    const context = this.canvas.getContext("2d");
    if (!this.grid) {
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    const { width, height, layers } = this.grid;
    this.canvas.width = width;
    this.canvas.height = height;
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const colors = this.#colors();
    const labels = layers[this.view.layer];
    for (let at = 0; at < labels.length; at += 1) pixels[at] = colors[labels[at]];
    context.putImageData(image, 0, 0);
    this.canvas.setAttribute("aria-label", `${this.view.label} of ${this.table.get("name", this.row)}`);
  }

  #describe(row, place) {
    const { byId, element, table = this.table } = fcnReport;
    const name = table.get("name", row), has = table.get("has", row);
    const width = table.get("width", row), height = table.get("height", row);
    byId("viewer-name").textContent = name;
    byId("viewer-name").title = name;
    byId("viewer-place").textContent = place;
    this.stage.style.aspectRatio = `${width} / ${height}`;
    // As large as the stage allows, in the photo's proportions.
    this.stage.style.width = `min(100cqw - 24px, (100cqh - 24px) * ${width / height})`;
    this.stage.classList.toggle("no-photo", !(has & 1));
    this.stage.classList.toggle("no-layer", !(has & 2));
    this.canvas.style.clipPath = has & 1 ? "" : "none";
    this.photo.hidden = !(has & 1);
    if (has & 1) {
      this.photo.src = fcnReport.imagePath(table.get("key", row), "-l.jpg");
      this.photo.alt = `Photo ${name}`;
    } else this.photo.removeAttribute("src");
    byId("viewer-classes").replaceChildren(...table.classesOf(row).map(([id, pixels]) => this.#classButton(id, pixels / (width * height), row)));
    byId("viewer-notes").replaceChildren(...table.get("notes", row).map((text) => element("p", { textContent: text })));
    const facts = fcnReport.factsOf(table, row).map(([term, value]) => element("div", { className: value.includes("\n") ? "whole" : "" }, element("dt", { textContent: term }), element("dd", { textContent: value })));
    byId("viewer-facts").replaceChildren(...facts);
    byId("viewer-links").replaceChildren(...fcnReport.linksOf(table, row).map(([text, href]) => element("a", { textContent: text, href, target: "_blank" })));
  }

  // A class of the photo: the pointer or the focus on it lights only that class, a click keeps it so.
  #classButton(id, share, row) {
    const { element } = fcnReport;
    const text = fcnReport.classText(this.table, row, id, share);
    const button = element("button", { type: "button", "aria-pressed": "false" },
      fcnReport.swatch(id), fcnReport.className(id), element("span", { className: "share", textContent: text }));
    const pressed = () => document.querySelector('#viewer-classes [aria-pressed="true"]');
    const light = (lit) => { this.lit = lit; this.#draw(); };
    const kept = () => (pressed() ? Number(pressed().dataset.id) : null);
    button.dataset.id = id;
    button.addEventListener("pointerenter", () => light(id));
    button.addEventListener("pointerleave", () => light(kept()));
    button.addEventListener("focus", () => light(id));
    button.addEventListener("blur", () => light(kept()));
    button.addEventListener("click", () => {
      const before = pressed();
      before?.setAttribute("aria-pressed", "false");
      if (before !== button) button.setAttribute("aria-pressed", "true");
      light(kept() ?? (before === button ? null : id));
    });
    return element("li", {}, button);
  }

  #note(text) {
    fcnReport.byId("viewer-notes").append(fcnReport.element("p", { textContent: text }));
  }

  #wipe(value) {
    const wipe = Math.max(0, Math.min(100, value));
    this.stage.style.setProperty("--wipe", wipe);
    fcnReport.byId("viewer-wipe").value = wipe;
  }

  // The class at a place of the grid, in words; in an evaluation both the truth and the prediction.
  classAt(x, y) {
    if (!this.grid) return null;
    const { width, layers } = this.grid;
    const at = y * width + x;
    if (!layers.truth) return { id: layers.labels[at], text: fcnReport.className(layers.labels[at]) };
    const truth = fcnReport.className(layers.truth[at]), predicted = fcnReport.className(layers.prediction[at]);
    if (layers.truth[at] === 255) return { id: layers.prediction[at], text: `void in the truth, predicted ${predicted}` };
    const text = layers.wrong[at] ? `truth ${truth}, predicted ${predicted}` : `${truth}, right`;
    return { id: layers.truth[at], text };
  }

  #pointed(event) {
    const box = this.stage.getBoundingClientRect();
    // Dragging with a mouse wipes; a finger only points.
    if (event.buttons === 1 && event.pointerType !== "touch") this.#wipe((100 * (event.clientX - box.left)) / box.width);
    this.#name((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, false);
  }

  // Name the class at a place, from 0 to 1 in both directions.
  #name(across, down, withProbe) {
    const { byId, swatch } = fcnReport;
    if (!this.grid) return;
    const { width, height } = this.grid;
    const x = Math.max(0, Math.min(width - 1, Math.floor(across * width)));
    const y = Math.max(0, Math.min(height - 1, Math.floor(down * height)));
    const { id, text } = this.classAt(x, y);
    this.probe = { x, y };
    const left = (100 * (x + 0.5)) / width, top = (100 * (y + 0.5)) / height;
    byId("probe").hidden = !withProbe;
    byId("probe").style.left = `${left}%`;
    byId("probe").style.top = `${top}%`;
    const tip = byId("tip");
    tip.hidden = false;
    tip.textContent = text;
    tip.style.left = `${left}%`;
    tip.style.top = `${top}%`;
    tip.style.transform = `translate(${left > 60 ? "calc(-100% - 14px)" : "14px"}, ${top > 80 ? "-130%" : "30%"})`;
    byId("probe-text").replaceChildren(swatch(id), text);
  }

  #unpoint() {
    fcnReport.byId("tip").hidden = true;
    fcnReport.byId("probe").hidden = true;
  }

  #pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.target === this.stage && arrow && this.grid) {
      const { width, height } = this.grid;
      const by = (event.shiftKey ? 0.1 : 0.01) * Math.max(width, height);
      const from = this.probe ?? { x: width / 2, y: height / 2 };
      const move = this.probe ? by : 0;
      this.#name((from.x + 0.5 + move * arrow[0]) / width, (from.y + 0.5 + move * arrow[1]) / height, true);
    } else if (arrow && arrow[0] && !event.target.matches("input")) this.step(arrow[0]);
    else if (event.key === "v") this.nextView();
    else if (event.key === "n") this.step(1);
    else if (event.key === "p") this.step(-1);
    else if (event.key === "[" || event.key === "]") this.#wipe(Number(fcnReport.byId("viewer-wipe").value) + (event.key === "[" ? -10 : 10));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
};
