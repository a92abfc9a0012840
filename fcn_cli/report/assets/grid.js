// The grid: one page of photos, each with a wipe between the photo and its classes.
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

  show(rows, { view, wipe, order }) {
    this.view = view;
    this.order = order;
    this.current = null;
    this.list.style.setProperty("--wipe", wipe);
    this.list.replaceChildren(...Array.from(rows, (row) => this.#card(row, wipe)));
    this.#enter(this.list.firstElementChild);
  }

  // Another kind of picture for the photos that are shown.
  setView(view) {
    this.view = view;
    for (const card of this.list.children) this.#setLayer(card);
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
    (card ?? this.list.firstElementChild)?.querySelector("button").focus();
  }

  #card(row, wipe) {
    const { element, data } = fcnReport;
    const name = this.table.get("name", row);
    const has = this.table.get("has", row);
    // In an evaluation all pictures of a photo stand side by side: the photo alone first.
    const views = data.kind === "evaluation" ? [null, ...data.views] : [undefined];
    const frame = element("button", { type: "button", className: "frame", tabIndex: -1, "aria-haspopup": "dialog" });
    for (const view of views) {
      const stack = this.#stack(row, name, has, view);
      frame.append(views.length > 1 ? element("span", { className: "panel" }, stack, element("span", { className: "tag", textContent: view ? view.label : "Photo" })) : stack);
    }
    frame.classList.toggle("quad", views.length > 1);
    const slider = element("input", {
      type: "range", min: 0, max: 100, value: wipe, tabIndex: -1, "aria-label": `Wipe between photo and classes: ${name}`,
    });
    slider.hidden = has !== 3;
    const card = element("li", { className: "card" }, frame, slider, this.#caption(row, name));
    card.dataset.row = row;
    frame.setAttribute("aria-label", `${name}: ${this.#summary(row, 3) || "no classes known"}. Open the large view`);
    this.#setLayer(card);
    return card;
  }

  // The photo with a label map over it: that of a view, of the chosen view (undefined), or none (null).
  #stack(row, name, has, view) {
    const { element } = fcnReport;
    const stack = element("span", { className: "stack" });
    const width = this.table.get("width", row), height = this.table.get("height", row);
    stack.style.aspectRatio = `${width} / ${height}`;
    stack.classList.add(width * 3 >= height * 4 ? "wide" : "tall");
    if (has & 1) stack.append(this.#image("photo", fcnReport.imagePath(this.table.get("key", row), "-s.jpg"), `Photo ${name}`, width, height));
    else stack.classList.add("no-photo");
    if (has & 2 && view !== null) {
      const image = this.#image("layer", "", "", width, height);
      if (view) image.dataset.view = view.id;
      stack.append(image);
    } else stack.classList.add("no-layer");
    if (!has || (view === null && !(has & 1))) stack.append(element("span", { className: "missing", textContent: "no picture" }));
    stack.append(element("span", { className: "handle", "aria-hidden": "true" }));
    return stack;
  }

  #image(kind, source, alt, width, height) {
    const image = fcnReport.element("img", { className: kind, alt, loading: "lazy", decoding: "async", width, height, draggable: false });
    image.addEventListener("error", () => {
      image.closest(".stack")?.append(fcnReport.element("span", { className: "missing", textContent: "The picture is missing; make the report again." }));
      image.remove();
    });
    if (source) image.src = source;
    return image;
  }

  #setLayer(card) {
    const row = Number(card.dataset.row);
    const name = this.table.get("name", row);
    // Without its photo, a label map stands alone.
    const alone = !(this.table.get("has", row) & 1);
    for (const image of card.querySelectorAll(".layer")) {
      const view = fcnReport.data.views.find((each) => each.id === image.dataset.view) ?? this.view;
      const source = fcnReport.layerPath(this.table.get("key", row), view.layer);
      if (image.getAttribute("src") !== source) image.src = source;
      image.alt = `${view.label} of ${name}: ${this.#summary(row, 3)}`;
      image.style.opacity = alone ? 1 : view.opacity;
      image.style.background = view.opacity === 1 || alone ? fcnReport.data.zero.color : "";
      image.style.clipPath = alone ? "none" : "";
    }
  }

  #summary(row, most) {
    return this.#named(row, this.table.classesOf(row).slice(0, most)).map(([, text]) => text).join(", ");
  }

  // Classes of a row with their text: "cat 34.2 %".
  #named(row, classes) {
    const area = this.table.get("width", row) * this.table.get("height", row);
    return classes.map(([id, pixels]) => [id, `${fcnReport.className(id)} ${fcnReport.classText(this.table, row, id, pixels / area)}`]);
  }

  #caption(row, name) {
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
    if (this.table.get("has", row) !== 3 && notes.length) caption.append(element("p", { className: "note", textContent: notes[0] }));
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
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const card = event.target.closest(".card");
    if (!card) return;
    if (event.key === "[" || event.key === "]") {
      this.#wipe(card, Number(card.querySelector("input").value) + (event.key === "[" ? -10 : 10));
      event.preventDefault();
      return;
    }
    if (event.target.matches("input")) return;
    const cards = [...this.list.children];
    const columns = cards.filter((each) => each.offsetTop === cards[0].offsetTop).length;
    const place = cards.indexOf(card);
    const to = {
      ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - columns, ArrowDown: place + columns, Home: 0, End: cards.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    cards[to]?.querySelector("button").focus();
  }
};
