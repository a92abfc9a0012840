// The grid: one page of images, each with a wipe between the image and its classes.
"use strict";

fcnReport.Grid = class {
  constructor(table, list, { open }) {
    this.table = table;
    this.list = list;
    this.open = open;
    this.current = null;
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("input", (event) => this.#slid(event));
    list.addEventListener("focusin", (event) => this.#enter(event.target.closest(".card")));
    list.addEventListener("keydown", (event) => this.#pressed(event));
    list.addEventListener("pointerdown", (event) => this.#dragged(event));
  }

  // Show rows, some cards at a time, while `isWanted`.
  async show(rows, isWanted, { view, wipe, order }) {
    const { slices } = fcnReport;
    const focused = this.list.contains(document.activeElement) ? Number(this.current.dataset.row) : null;
    this.view = view;
    this.order = order;
    this.current = null;
    this.list.style.setProperty("--wipe", wipe);
    this.list.replaceChildren();
    let cards = [];
    for (const row of rows) {
      cards.push(this.#card(row, wipe));
      if (!slices.isOver()) continue;
      this.list.append(...cards);
      cards = [];
      await slices.next();
      if (!isWanted()) return;
    }
    this.list.append(...cards);
    if (focused !== null && document.activeElement === document.body) this.focus(focused);
    if (!this.current) this.#enter(this.list.firstElementChild);
  }

  // Another kind of picture for the images that are shown.
  setView(view) {
    this.view = view;
    for (const card of this.list.children) if (card.dataset.row) this.#setLayer(card);
  }

  setWipe(wipe) {
    this.list.style.setProperty("--wipe", wipe);
    for (const slider of this.list.querySelectorAll("input")) {
      slider.value = wipe;
      slider.closest(".card").style.removeProperty("--wipe");
    }
  }

  focus(row = null) {
    const card = row === null ? this.current : this.list.querySelector(`[data-row="${row}"]`);
    (card ?? this.list.firstElementChild)?.querySelector("button")?.focus();
  }

  #card(row, wipe) {
    const { element, data } = fcnReport;
    const name = this.table.get("name", row);
    const isWhole = this.table.hasPicture(row) && this.table.hasLabels(row);
    // In an evaluation all pictures of an image stand side by side: the image alone first.
    const views = data.page === "evaluation" ? [null, ...data.views] : [undefined];
    const frame = element("button", { type: "button", className: "frame", tabIndex: -1, "aria-haspopup": "dialog" });
    for (const view of views) {
      const stack = this.#stack(row, name, view);
      const tag = element("span", { className: "tag", textContent: view ? view.label : "Image" });
      frame.append(views.length > 1 ? element("span", { className: "panel" }, stack, tag) : stack);
    }
    frame.classList.toggle("quad", views.length > 1);
    const slider = element("input", {
      type: "range", min: 0, max: 100, value: wipe, tabIndex: -1, "aria-label": `Wipe between image and classes: ${name}`,
    });
    slider.hidden = !isWhole;
    const card = element("li", { className: "card" }, frame, slider, this.#caption(row, name, isWhole));
    card.dataset.row = row;
    frame.setAttribute("aria-label", `${name}: ${this.#summary(row, 3) || "no classes known"}. Open the large view`);
    this.#setLayer(card);
    return card;
  }

  // The image with a label map over it: that of a view, of the chosen view (undefined), or none (null).
  #stack(row, name, view) {
    const { element } = fcnReport;
    const stack = element("span", { className: "stack" });
    const width = this.table.get("width", row), height = this.table.get("height", row);
    const hasPicture = this.table.hasPicture(row), hasLabels = this.table.hasLabels(row);
    stack.style.aspectRatio = `${width} / ${height}`;
    stack.classList.add(width * 3 >= height * 4 ? "wide" : "tall");
    if (hasPicture) stack.append(this.#picture("image", this.table.path(row, "small", "jpg"), name, width, height));
    else stack.classList.add("no-image");
    if (hasLabels && view !== null) {
      const layer = this.#picture("layer", "", "", width, height);
      if (view) layer.dataset.view = view.id;
      stack.append(layer);
    } else stack.classList.add("no-layer");
    if (!hasPicture && (!hasLabels || view === null)) stack.append(element("span", { className: "missing", textContent: "no picture" }));
    stack.append(element("span", { className: "handle", "aria-hidden": "true" }));
    return stack;
  }

  #picture(className, source, alt, width, height) {
    const picture = fcnReport.element("img", { className, alt, loading: "lazy", decoding: "async", width, height, draggable: false });
    picture.addEventListener("error", () => {
      const text = "The picture is missing. If the report was made again, reload this page.";
      picture.closest(".stack")?.append(fcnReport.element("span", { className: "missing", textContent: text }));
      picture.remove();
    });
    if (source) picture.src = source;
    return picture;
  }

  #setLayer(card) {
    const row = Number(card.dataset.row);
    const name = this.table.get("name", row);
    // Without its image, a label map stands alone.
    const alone = !this.table.hasPicture(row);
    for (const layer of card.querySelectorAll(".layer")) {
      const view = fcnReport.data.views.find((each) => each.id === layer.dataset.view) ?? this.view;
      const source = this.table.path(row, view.layer, "png");
      if (layer.getAttribute("src") !== source) layer.src = source;
      layer.alt = `${view.label} of ${name}: ${this.#summary(row, 3)}`;
      layer.style.opacity = alone ? 1 : view.opacity;
      layer.style.background = view.opacity === 1 || alone ? fcnReport.data.zero.color : "";
      layer.style.clipPath = alone ? "none" : "";
    }
  }

  #summary(row, most) {
    return this.#named(row, this.table.classesOf(row).slice(0, most)).map(([, text]) => text).join(", ");
  }

  // Classes of a row with their text: "cat 34.2 %".
  #named(row, classes) {
    const area = this.table.area(row);
    return classes.map(([id, pixels]) => [id, `${fcnReport.className(id)} ${fcnReport.classText(this.table, row, id, pixels / area)}`]);
  }

  #caption(row, name, isWhole) {
    const { element } = fcnReport;
    const chips = element("p", { className: "chips", "aria-hidden": "true" });
    const named = this.table.classesOf(row).filter(([id]) => id !== 0 && id !== 255);
    for (const [id, text] of this.#named(row, named.slice(0, 3))) chips.append(element("span", {}, fcnReport.swatch(id), text));
    const caption = element("div", { className: "caption" }, element("p", { className: "name", title: name, textContent: name }), chips);
    const value = this.order.value?.(row);
    if (this.order.show) {
      caption.append(element("p", { className: "value", textContent: value === null ? "not known" : this.order.show(value) }));
    }
    const notes = this.table.get("notes", row);
    if (!isWhole && notes.length) caption.append(element("p", { className: "note", textContent: notes[0] }));
    return caption;
  }

  // One card of the grid is in the order of Tab; the arrow keys go to the others.
  #enter(card) {
    if (!card || card === this.current) return;
    if (this.current) for (const part of this.current.querySelectorAll("button, input")) part.tabIndex = -1;
    for (const part of card.querySelectorAll("button, input")) part.tabIndex = 0;
    this.current = card;
  }

  #clicked(event) {
    const button = event.target.closest(".frame");
    if (!button) return;
    if (this.moved) this.moved = false;
    else this.open(Number(button.closest(".card").dataset.row));
  }

  #slid(event) {
    this.#wipe(event.target.closest(".card"), Number(event.target.value));
  }

  #wipe(card, value) {
    const wipe = Math.max(0, Math.min(100, value));
    card.style.setProperty("--wipe", wipe);
    card.querySelector("input").value = wipe;
  }

  // Dragging across a picture wipes it; a click without a drag opens it.
  #dragged(event) {
    const stack = event.target.closest(".frame")?.querySelector(".stack");
    this.moved = false;
    if (!stack || event.button !== 0) return;
    const card = stack.closest(".card");
    const move = (moving) => {
      if (!this.moved && Math.abs(moving.clientX - event.clientX) < 6) return;
      this.moved = true;
      const box = stack.getBoundingClientRect();
      this.#wipe(card, (100 * (moving.clientX - box.left)) / box.width);
    };
    const end = () => {
      window.removeEventListener("pointermove", move);
      // The click of this drag comes first.
      setTimeout(() => { this.moved = false; });
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", end, { once: true });
    window.addEventListener("pointercancel", end, { once: true });
  }

  #pressed(event) {
    const key = fcnReport.shortcuts.of(event);
    const card = event.target.closest(".card");
    if (!key || !card) return;
    if (key === "[" || key === "]") {
      this.#wipe(card, Number(card.querySelector("input").value) + (key === "[" ? -10 : 10));
      event.preventDefault();
      return;
    }
    if (event.target.matches("input")) return;
    const cards = [...this.list.children];
    const columns = cards.filter((each) => each.offsetTop === cards[0].offsetTop).length;
    const place = cards.indexOf(card);
    const to = {
      ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - columns, ArrowDown: place + columns, Home: 0, End: cards.length - 1,
    }[key];
    if (to === undefined) return;
    event.preventDefault();
    cards[to]?.querySelector("button").focus();
  }
};
