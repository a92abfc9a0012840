// The large view: an image, its classes drawn from the label grid, the name of the class under the pointer; zoom.
"use strict";

fcnReport.Viewer = class {
  #MOST_SCREEN_PIXELS = 32;
  #GRID_FROM = 8;
  #MARGIN = 12;

  constructor(table, { step, changed, closed }) {
    const { byId } = fcnReport;
    this.table = table;
    this.step = step;
    this.changed = changed;
    this.dialog = byId("viewer");
    this.viewport = byId("viewport");
    this.stage = byId("stage");
    this.canvas = byId("viewer-layer");
    this.picture = byId("viewer-picture");
    this.grid = null;
    this.view = fcnReport.data.views[0];
    this.opacity = null;
    this.isOn = true;
    // The class that is lit alone while somebody points at it, and the one that stays so.
    this.lit = null;
    this.only = null;
    this.probe = null;
    this.zoom = 1;
    this.center = { x: 0.5, y: 0.5 };
    this.pointers = new Map();
    const on = (id, type, listener) => byId(id).addEventListener(type, listener);
    on("viewer-close", "click", () => this.dialog.close());
    on("viewer-previous", "click", () => step(-1));
    on("viewer-next", "click", () => step(1));
    on("viewer-wipe", "input", (event) => this.#wipe(Number(event.target.value)));
    on("viewer-opacity", "input", (event) => { this.opacity = event.target.value / 100; this.#applyLook(); });
    on("viewer-on", "change", (event) => this.turn(event.target.checked));
    on("viewer-views", "change", (event) => this.setView(event.target.value));
    on("zoom-in", "click", () => this.zoomBy(2));
    on("zoom-out", "click", () => this.zoomBy(0.5));
    on("zoom-fit", "click", () => this.zoomTo(1));
    on("zoom-pixels", "click", () => this.#zoomToScale(this.#GRID_FROM));
    on("viewer", "close", () => closed(this.row));
    on("viewer", "keydown", (event) => this.#pressed(event));
    on("viewer", "click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    on("viewport", "pointerdown", (event) => this.#down(event));
    on("viewport", "pointermove", (event) => this.#moved(event));
    for (const end of ["pointerup", "pointercancel"]) on("viewport", end, (event) => this.#up(event));
    on("viewport", "pointerleave", () => this.#unpoint());
    on("viewport", "dblclick", (event) => this.#doubled(event));
    this.viewport.addEventListener("wheel", (event) => this.#wheeled(event), { passive: false });
    this.picture.addEventListener("error", () => this.#note("The large picture is missing. If the report was made again, reload this page."));
    new ResizeObserver(() => this.#place()).observe(this.viewport);
  }

  get isOpen() {
    return this.dialog.open;
  }

  // Show a row; `where` says the place to show of it: zoom, x and y of the centre, from 0 to 1.
  async open(row, place, view, where = { zoom: 1, x: 0.5, y: 0.5 }) {
    const { byId } = fcnReport;
    const isFirst = !this.dialog.open;
    this.row = row;
    this.grid = null;
    this.lit = null;
    this.probe = null;
    this.#unpoint();
    this.#describe(row, place);
    if (isFirst) {
      this.dialog.showModal();
      byId("viewer-name").focus();
      this.opacity = null;
    }
    this.zoom = where.zoom;
    this.center = { x: where.x, y: where.y };
    this.setView(isFirst ? view.id : this.view.id);
    this.#place();
    byId("probe-text").textContent = "Point at the picture to see the class.";
    if (this.table.hasLabels(row)) await this.#loadGrid(row);
  }

  setView(id) {
    const { byId, data } = fcnReport;
    if (id !== this.view.id) this.opacity = null;
    this.view = data.views.find((view) => view.id === id);
    for (const radio of byId("viewer-views").querySelectorAll("input")) radio.checked = radio.value === id;
    this.#applyLook();
    this.#draw();
  }

  nextView() {
    const { views } = fcnReport.data;
    this.setView(views[(views.indexOf(this.view) + 1) % views.length].id);
  }

  // Show or hide the classes.
  turn(on) {
    this.isOn = on;
    this.#applyLook();
    this.changed();
  }

  // Light one class alone, or all (null).
  keepOnly(id) {
    this.only = id;
    for (const button of fcnReport.byId("viewer-classes").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.id) === id));
    }
    this.#draw();
    this.changed();
  }

  #applyLook() {
    const { byId } = fcnReport;
    const alone = !this.table.hasPicture(this.row);
    const opacity = alone ? 1 : this.opacity ?? this.view.opacity;
    byId("viewer-opacity").value = 100 * opacity;
    byId("viewer-on").checked = this.isOn;
    this.canvas.style.opacity = opacity;
    this.canvas.hidden = !this.isOn;
  }

  async #loadGrid(row) {
    const key = this.table.get("key", row);
    try {
      const grid = await fcnReport.load(key, this.table.path(row, "grid", "js"));
      fcnReport.forget(key);
      if (this.row !== row) return;
      const layers = {};
      for (const [name, runs] of Object.entries(grid.layers)) layers[name] = this.#decode(runs, grid.w * grid.h);
      if (layers.truth) layers.wrong = this.#wrong(layers.truth, layers.prediction);
      this.grid = { width: grid.w, height: grid.h, layers };
      this.#place();
      this.#draw();
    } catch {
      if (this.row === row) this.#note("The label grid is missing. If the report was made again, reload this page.");
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

  #wrong(truth, predicted) {
    const wrong = new Uint8Array(truth.length);
    for (let at = 0; at < truth.length; at += 1) wrong[at] = truth[at] !== 255 && truth[at] !== predicted[at] ? 1 : 0;
    return wrong;
  }

  // Colours as a canvas has them: red, green, blue, alpha in the order of bytes.
  #colors() {
    const table = new Uint8ClampedArray(4 * 256);
    const opaque = this.view.opacity === 1 || !this.table.hasPicture(this.row);
    const only = this.lit ?? (this.table.of("classes", this.row, this.only) === null ? null : this.only);
    for (let id = 0; id < 256; id += 1) {
      const hex = this.view.color ?? fcnReport.classColor(id);
      for (let part = 0; part < 3; part += 1) table[4 * id + part] = parseInt(hex.slice(1 + 2 * part, 3 + 2 * part), 16);
      let alpha = id === 0 && (!opaque || this.view.color) ? 0 : 255;
      if (only !== null && !this.view.color) alpha = id === only ? 255 : opaque ? 40 : 0;
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
    const { byId, element } = fcnReport;
    const { table } = this;
    const name = table.get("name", row);
    const hasPicture = table.hasPicture(row);
    byId("viewer-name").textContent = name;
    byId("viewer-name").title = name;
    byId("viewer-place").textContent = place;
    this.stage.classList.toggle("no-image", !hasPicture);
    this.stage.classList.toggle("no-layer", !table.hasLabels(row));
    this.canvas.style.clipPath = hasPicture ? "" : "none";
    this.picture.hidden = !hasPicture;
    if (hasPicture) {
      this.picture.src = table.path(row, "large", "jpg");
      this.picture.alt = name;
    } else this.picture.removeAttribute("src");
    byId("viewer-classes").replaceChildren(...table.classesOf(row).map(([id, pixels]) => this.#classButton(id, pixels / table.area(row), row)));
    byId("viewer-notes").replaceChildren(...table.get("notes", row).map((text) => element("p", { textContent: text })));
    const facts = fcnReport.factsOf(table, row).map(([term, value]) => element("div", { className: value.includes("\n") ? "whole" : "" }, element("dt", { textContent: term }), element("dd", { textContent: value })));
    byId("viewer-facts").replaceChildren(...facts);
    byId("viewer-links").replaceChildren(...fcnReport.linksOf(table, row).map(([text, href]) => element("a", { textContent: text, href, target: "_blank" })));
  }

  // A class of the image: the pointer or the focus on it lights only that class, a click keeps it so.
  #classButton(id, share, row) {
    const { element } = fcnReport;
    const text = fcnReport.classText(this.table, row, id, share);
    const button = element("button", { type: "button", "aria-pressed": String(id === this.only) },
      fcnReport.swatch(id), fcnReport.className(id), element("span", { className: "share", textContent: text }));
    const light = (lit) => { this.lit = lit; this.#draw(); };
    button.dataset.id = id;
    button.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") light(id); });
    button.addEventListener("pointerleave", () => light(null));
    button.addEventListener("focus", () => { if (button.matches(":focus-visible")) light(id); });
    button.addEventListener("blur", () => light(null));
    button.addEventListener("click", () => {
      this.lit = null;
      this.keepOnly(this.only === id ? null : id);
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

  // Zoom. The picture's own size, in pixels, and the one in which all of it is seen.
  #sizes() {
    const width = this.table.get("width", this.row), height = this.table.get("height", this.row);
    const scale = Math.min(1, fcnReport.data.large / Math.max(width, height));
    const box = { width: this.viewport.clientWidth, height: this.viewport.clientHeight };
    const room = { width: Math.max(1, box.width - 2 * this.#MARGIN), height: Math.max(1, box.height - 2 * this.#MARGIN) };
    const fit = Math.min(room.width / width, room.height / height);
    return { own: Math.max(1, width * scale), width: width * fit, height: height * fit, box };
  }

  // Put the picture where zoom and centre say; it neither leaves the view nor lies askew in it.
  #place() {
    if (this.row === undefined || !this.isOpen) return;
    const { own, width, height, box } = this.#sizes();
    const most = Math.max(1, (this.#MOST_SCREEN_PIXELS * own) / width);
    this.zoom = Math.max(1, Math.min(most, this.zoom));
    const size = { x: width * this.zoom, y: height * this.zoom };
    const room = { x: box.width, y: box.height };
    for (const way of ["x", "y"]) {
      const half = (room[way] / 2 - this.#MARGIN) / size[way];
      this.center[way] = half >= 0.5 ? 0.5 : Math.max(half, Math.min(1 - half, this.center[way]));
    }
    const { style } = this.stage;
    style.width = `${size.x}px`;
    style.height = `${size.y}px`;
    style.left = `${room.x / 2 - this.center.x * size.x}px`;
    style.top = `${room.y / 2 - this.center.y * size.y}px`;
    this.scale = size.x / own;
    this.stage.classList.toggle("pixels", this.scale >= 2);
    this.stage.classList.toggle("lines", this.scale >= this.#GRID_FROM - 1e-6);
    style.setProperty("--pixel", `${this.scale}px`);
    this.viewport.classList.toggle("zoomed", this.zoom > 1);
    fcnReport.byId("zoom-text").textContent = `${fcnReport.number(Math.round(100 * this.scale))} %`;
    fcnReport.byId("zoom-out").disabled = this.zoom <= 1;
    fcnReport.byId("zoom-in").disabled = this.zoom >= most;
  }

  // Zoom about a place of the window, which stays where it is; without one about the probe, or else the middle.
  zoomTo(zoom, at = null) {
    const { width, height, box } = this.#sizes();
    const around = at ?? this.#probeInWindow();
    const outer = this.viewport.getBoundingClientRect();
    const away = around ? { x: around.x - outer.left - box.width / 2, y: around.y - outer.top - box.height / 2 } : { x: 0, y: 0 };
    const fixed = { x: this.center.x + away.x / (width * this.zoom), y: this.center.y + away.y / (height * this.zoom) };
    const { own } = this.#sizes();
    this.zoom = Math.max(1, Math.min((this.#MOST_SCREEN_PIXELS * own) / width, zoom));
    this.center = { x: fixed.x - away.x / (width * this.zoom), y: fixed.y - away.y / (height * this.zoom) };
    this.#unpoint(this.probe !== null);
    this.#place();
    this.changed();
  }

  zoomBy(factor, at = null) {
    this.zoomTo(this.zoom * factor, at);
  }

  #zoomToScale(scale, at = null) {
    const { own, width } = this.#sizes();
    this.zoomTo((scale * own) / width, at);
  }

  #panBy(x, y) {
    const { width, height } = this.#sizes();
    this.center.x -= x / (width * this.zoom);
    this.center.y -= y / (height * this.zoom);
    this.#place();
    this.changed();
  }

  #probeInWindow() {
    if (!this.probe || !this.grid || fcnReport.byId("probe").hidden) return null;
    const box = this.stage.getBoundingClientRect();
    return { x: box.left + (box.width * (this.probe.x + 0.5)) / this.grid.width, y: box.top + (box.height * (this.probe.y + 0.5)) / this.grid.height };
  }

  // Move the picture so far that the probe is seen.
  #follow() {
    const at = this.#probeInWindow();
    const outer = this.viewport.getBoundingClientRect();
    const over = (value, from, to) => Math.min(0, value - (from + 40)) + Math.max(0, value - (to - 40));
    const x = over(at.x, outer.left, outer.right), y = over(at.y, outer.top, outer.bottom);
    if (this.zoom > 1 && (x || y)) this.#panBy(-x, -y);
  }

  #wheeled(event) {
    event.preventDefault();
    // A pinch on a touchpad comes as a wheel with Ctrl, in small steps.
    const pixels = event.deltaY * (event.deltaMode === 1 ? 24 : 1);
    this.zoomBy(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.002)), { x: event.clientX, y: event.clientY });
  }

  #doubled(event) {
    const at = { x: event.clientX, y: event.clientY };
    if (this.zoom > 1) this.zoomTo(1, at);
    else this.#zoomToScale(this.#GRID_FROM, at);
  }

  #down(event) {
    if (event.button !== 0) return;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.viewport.setPointerCapture(event.pointerId);
    const box = this.stage.getBoundingClientRect();
    const wiper = box.left + (box.width * Number(fcnReport.byId("viewer-wipe").value)) / 100;
    const isOnHandle = Math.abs(event.clientX - wiper) < 14 && !this.stage.matches(".no-image, .no-layer");
    // A drag moves what is zoomed. Else a mouse wipes, and a finger points.
    this.drag = isOnHandle || (this.zoom <= 1 && event.pointerType !== "touch") ? "wipe" : this.zoom > 1 ? "pan" : "point";
    this.#point(event);
  }

  #moved(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.#point(event);
      return;
    }
    const now = { x: event.clientX, y: event.clientY };
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const distance = (a, b) => Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
      const middle = (a, b) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
      const from = middle(before, other), to = middle(now, other);
      this.zoomBy(distance(now, other) / distance(before, other), from);
      this.#panBy(to.x - from.x, to.y - from.y);
    } else if (this.drag === "pan") this.#panBy(now.x - before.x, now.y - before.y);
    else if (this.drag === "wipe") {
      const box = this.stage.getBoundingClientRect();
      if (now.x !== before.x) this.#wipe((100 * (now.x - box.left)) / box.width);
      this.#point(event);
    } else this.#point(event);
    this.pointers.set(event.pointerId, now);
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size === 1) this.drag = "pan";
  }

  #point(event) {
    const box = this.stage.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
    if (across >= 0 && across < 1 && down >= 0 && down < 1) this.#name(across, down, false);
    else this.#unpoint();
  }

  // The class at a place of the grid, in words; in an evaluation both the truth and the prediction.
  classAt(x, y) {
    if (!this.grid) return null;
    const { className } = fcnReport;
    const { width, layers } = this.grid;
    const at = y * width + x;
    if (!layers.truth) return { id: layers.labels[at], text: className(layers.labels[at]) };
    const truth = className(layers.truth[at]), predicted = className(layers.prediction[at]);
    if (layers.truth[at] === 255) return { id: layers.prediction[at], text: `ignored in the ground truth, predicted ${predicted}` };
    const text = layers.wrong[at] ? `truth ${truth}, predicted ${predicted}` : `${truth}, right`;
    return { id: layers.truth[at], text };
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
    const box = this.stage.getBoundingClientRect(), outer = this.viewport.getBoundingClientRect();
    byId("probe").hidden = !withProbe;
    byId("probe").style.left = `${left}%`;
    byId("probe").style.top = `${top}%`;
    const tip = byId("tip");
    tip.hidden = false;
    tip.textContent = text;
    const place = { x: box.left + (box.width * left) / 100 - outer.left, y: box.top + (box.height * top) / 100 - outer.top };
    tip.style.left = `${place.x}px`;
    tip.style.top = `${place.y}px`;
    const isRight = place.x > 0.6 * outer.width, isLow = place.y > 0.8 * outer.height;
    tip.style.transform = `translate(${isRight ? "calc(-100% - 14px)" : "14px"}, ${isLow ? "-130%" : "30%"})`;
    byId("probe-text").replaceChildren(swatch(id), text);
  }

  #unpoint(keepsProbe = false) {
    fcnReport.byId("tip").hidden = true;
    if (!keepsProbe) fcnReport.byId("probe").hidden = true;
  }

  #pressed(event) {
    const key = fcnReport.shortcuts.of(event);
    if (!key) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    const wipe = Number(fcnReport.byId("viewer-wipe").value);
    if (event.target === this.viewport && arrow && this.grid) {
      const { width, height } = this.grid;
      // About 12 pixels of the screen, or one of the picture where that is larger.
      const by = Math.max(1, Math.round((12 * width) / this.stage.clientWidth)) * (event.shiftKey ? 10 : 1);
      const from = this.probe ?? { x: this.center.x * width, y: this.center.y * height };
      const move = this.probe ? by : 0;
      this.#name((Math.floor(from.x) + 0.5 + move * arrow[0]) / width, (Math.floor(from.y) + 0.5 + move * arrow[1]) / height, true);
      this.#follow();
    } else if (arrow && arrow[0] && !event.target.matches("input")) this.step(arrow[0]);
    else if (key === "v") this.nextView();
    else if (key === "n") this.step(1);
    else if (key === "p") this.step(-1);
    else if (key === "o") this.turn(!this.isOn);
    else if (key === "+" || key === "=") this.zoomBy(2);
    else if (key === "-") this.zoomBy(0.5);
    else if (key === "0") this.zoomTo(1);
    else if (key === "8") this.#zoomToScale(this.#GRID_FROM);
    else if (key === "[" || key === "]") this.#wipe(wipe + (key === "[" ? -10 : 10));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
};
