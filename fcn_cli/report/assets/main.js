// Joins the parts: the controls, the pages of images, the keys, the address.
"use strict";

// What the two kinds of page say of a class of an image, and of an image.
if (fcnReport.data.page === "evaluation") {
  fcnReport.classText = (table, row, id, share) => {
    const iou = table.of("ious", row, id);
    return iou === null ? fcnReport.percent(share) : `IoU ${fcnReport.percent(iou)}`;
  };
  fcnReport.factsOf = (table, row) => {
    const figure = (value) => (value === null ? "not defined" : fcnReport.percent(value));
    const pairs = table.get("mistakes", row);
    const mistakes = [];
    for (let at = 0; at < Math.min(6, pairs.length); at += 2) {
      const share = fcnReport.percent(pairs[at + 1] / table.area(row)).replaceAll(" ", "\u00a0");
      mistakes.push(`${fcnReport.cellName(pairs[at])}: ${share} of the pixels`);
    }
    return [
      ["mean IoU", figure(table.get("iou", row))], ["pixel accuracy", figure(table.get("accuracy", row))],
      ["compared at", `${table.get("width", row)} × ${table.get("height", row)}`],
      ...(mistakes.length ? [["largest mistakes", mistakes.join("\n")]] : []),
    ];
  };
  fcnReport.linksOf = () => [];
} else {
  fcnReport.classText = (table, row, id, share) => fcnReport.percent(share);
  fcnReport.factsOf = (table, row) => {
    const facts = [["size", `${table.get("width", row)} × ${table.get("height", row)}`]];
    const confidence = table.get("confidence", row);
    if (confidence !== null) facts.push(["mean confidence", confidence.toFixed(3)]);
    if (table.get("ran", row)) facts.push(["ran on", table.get("ran", row)]);
    facts.push(["took", `${table.get("seconds", row).toFixed(2)} s`]);
    facts.push(["finished", fcnReport.timeText(table.get("finished", row))]);
    return facts;
  };
  fcnReport.linksOf = (table, row) => {
    const types = table.get("types", row), stem = table.get("stem", row);
    return fcnReport.data.types
      .filter((_, bit) => types & (1 << bit))
      .map(({ name, suffix }) => [name, `${name}/${stem}${suffix}`]);
  };
}

(() => {
  const { data, byId, element, number, shortcuts } = fcnReport;
  const table = new fcnReport.Table(data.images);
  const filters = new fcnReport.Filters(table);
  const firstSort = byId("sort").options[0].value;
  const state = { text: "", id: null, least: 0, cell: null, sort: firstSort, reverse: false, view: data.view, wipe: data.wipe, page: 0 };
  let rows = new Uint32Array(0);
  let asked = 0;
  let drawn = 0;
  let opened = 0;

  const grid = new fcnReport.Grid(table, byId("grid"), { open: (row) => openRow(row) });
  const viewer = new fcnReport.Viewer(table, { step, changed: () => remember(), closed: (row) => leaveViewer(row) });
  const view = () => data.views.find((each) => each.id === state.view);
  const pages = () => Math.max(1, Math.ceil(rows.length / data.perPage));

  const say = (text) => { byId("status").textContent = text; };
  const sayPart = (part) => { if (part < 1) say(`Loading the table: ${Math.round(100 * part)} %`); };
  const sayLost = (error) => say(`The table cannot be loaded: ${error.message}. If the report was made again, reload this page.`);

  // Find the rows to show, then show a page of them; what is asked for later wins.
  async function refresh({ page = 0, focus = false } = {}) {
    const mine = (asked += 1);
    const isWanted = () => mine === asked;
    const slow = setTimeout(() => say("Loading the table…"), 200);
    try {
      const found = await filters.rows({ ...state }, isWanted, (part) => { if (isWanted()) sayPart(part); });
      if (!found || !isWanted()) return;
      rows = found;
      await showPage(page, { focus });
    } catch (error) {
      sayLost(error);
    } finally {
      clearTimeout(slow);
    }
  }

  async function showPage(page, { focus = false, scroll = false } = {}) {
    const mine = (drawn += 1);
    const isWanted = () => mine === drawn;
    state.page = Math.max(0, Math.min(pages() - 1, page));
    const shown = rows.slice(state.page * data.perPage, (state.page + 1) * data.perPage);
    await table.loadRows(shown);
    if (!isWanted()) return;
    await grid.show(shown, isWanted, { view: view(), wipe: state.wipe, order: filters.order(state.sort, state.cell) });
    if (!isWanted()) return;
    const filtered = state.text || state.id !== null || state.cell !== null;
    if (!shown.length) byId("grid").replaceChildren(element("li", { className: "empty", textContent: filtered ? "No matching images." : "No images yet." }));
    say(filtered ? `${number(rows.length)} of ${number(table.rows)} images` : `${number(table.rows)} ${table.rows === 1 ? "image" : "images"}`);
    for (const place of ["pager-top", "pager-bottom"]) byId(place).replaceChildren(...pager(shown.length));
    if (scroll) byId("tools").scrollIntoView();
    if (focus) grid.focus();
    remember();
  }

  function pager(shown) {
    if (pages() === 1) return [];
    const first = state.page * data.perPage;
    const go = (text, label, to) => {
      const button = element("button", { type: "button", textContent: text, "aria-label": label, disabled: to === state.page || to < 0 || to >= pages() });
      button.addEventListener("click", () => showPage(to, { focus: true, scroll: true }));
      return button;
    };
    const input = element("input", { type: "number", min: 1, max: pages(), value: state.page + 1, "aria-label": `Page, of ${pages()}` });
    input.addEventListener("change", () => showPage(Number(input.value) - 1, { scroll: true }));
    return [
      element("span", { className: "range", textContent: `${number(first + 1)}–${number(first + shown)} of ${number(rows.length)}` }),
      go("⇤", "First page", 0), go("←", "Previous page", state.page - 1), input,
      element("span", { textContent: `of ${number(pages())}` }),
      go("→", "Next page", state.page + 1), go("⇥", "Last page", pages() - 1),
    ];
  }

  async function openRow(row, where) {
    const mine = (opened += 1);
    await table.loadRows([row]);
    if (mine !== opened) return;
    const place = rows.indexOf(row);
    const showing = viewer.open(row, place < 0 ? "not among the matching images" : `${number(place + 1)} of ${number(rows.length)}`, view(), where);
    remember();
    await showing;
  }

  // The image before or after the one in the large view, on whatever page it is.
  async function step(by) {
    const place = rows.indexOf(viewer.row) + by;
    if (place >= 0 && place < rows.length) await openRow(rows[place]);
  }

  async function leaveViewer(row) {
    remember();
    const place = rows.indexOf(row);
    const page = Math.floor(place / data.perPage);
    if (place >= 0 && page !== state.page) await showPage(page);
    grid.focus(place >= 0 ? row : null);
  }

  function setView(id) {
    state.view = id;
    for (const radio of byId("views").querySelectorAll("input")) radio.checked = radio.value === id;
    grid.setView(view());
    remember();
  }

  function setClass(id) {
    state.id = id;
    byId("class").value = id === null ? "" : id;
    byId("least").disabled = id === null;
    if (id === null) setLeast(0);
  }

  function setLeast(share) {
    state.least = share;
    byId("least").value = Math.round(100 * share);
    byId("least-text").textContent = `${Math.round(100 * share)} %`;
  }

  // Images with pixels in a cell of the confusion matrix, those with the most of them first; null for all images.
  function setCell(cell) {
    state.cell = cell;
    const chip = byId("cell-chip");
    if (!chip) return;
    chip.hidden = cell === null;
    byId("cell-name").textContent = cell === null ? "" : fcnReport.cellName(cell);
    for (const button of document.querySelectorAll(".cell")) button.setAttribute("aria-pressed", String(Number(button.dataset.cell) === cell));
    if (cell !== null) setSort("cell");
    else if (state.sort === "cell") setSort(firstSort);
  }

  function setSort(sort, reverse = false) {
    state.sort = sort;
    state.reverse = reverse;
    const option = byId("sort").querySelector('[value="cell"]');
    if (option) option.hidden = option.disabled = state.cell === null;
    byId("sort").value = sort;
    const down = filters.order(sort, state.cell).descending !== reverse;
    const button = byId("direction");
    button.textContent = down ? "↓" : "↑";
    button.setAttribute("aria-label", `Order: ${down ? "largest first" : "smallest first"}. Reverse it`);
    button.title = down ? "Largest, latest or last first" : "Smallest, earliest or first first";
  }

  // The address keeps what is chosen, and what the large view shows: a link, a reload and a bookmark come back to it.
  function address() {
    const kept = new URLSearchParams();
    if (state.text) kept.set("name", state.text);
    if (state.id !== null) kept.set("class", state.id);
    if (state.least) kept.set("least", state.least);
    if (state.cell !== null) kept.set("cell", fcnReport.cellOf(state.cell).join("-"));
    if (state.sort !== (state.cell === null ? firstSort : "cell") || state.reverse) kept.set("sort", state.sort);
    if (state.reverse) kept.set("reverse", 1);
    if (state.view !== data.view) kept.set("show", state.view);
    if (state.page) kept.set("page", state.page + 1);
    if (viewer.isOpen) {
      kept.set("image", table.get("name", viewer.row));
      kept.set("row", viewer.row);
      if (viewer.zoom > 1) {
        kept.set("zoom", Number(viewer.zoom.toFixed(3)));
        kept.set("at", `${viewer.center.x.toFixed(4)},${viewer.center.y.toFixed(4)}`);
      }
      if (viewer.only !== null) kept.set("only", viewer.only);
      if (!viewer.isOn) kept.set("overlay", "off");
    }
    return kept.toString();
  }

  let remembering;
  function remember() {
    // A browser takes only so many changes of the address in a time.
    clearTimeout(remembering);
    remembering = setTimeout(() => {
      const hash = address();
      if (hash || location.hash.includes("=")) history.replaceState(null, "", `#${hash || "images"}`);
    }, 150);
  }

  async function recall() {
    const kept = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    const offers = (select, value) => [...byId(select).options].some((option) => option.value === value);
    state.text = kept.get("name") ?? "";
    byId("text").value = state.text;
    setClass(kept.has("class") && offers("class", kept.get("class")) ? Number(kept.get("class")) : null);
    setLeast(state.id === null ? 0 : Math.max(0, Math.min(1, Number(kept.get("least")) || 0)));
    const cell = /^(\d{1,3})-(\d{1,3})$/.exec(kept.get("cell") ?? "");
    setCell(cell && data.page === "evaluation" ? 256 * Number(cell[1]) + Number(cell[2]) : null);
    const sort = kept.get("sort");
    if (sort !== "cell") setSort(offers("sort", sort) ? sort : state.cell === null ? firstSort : "cell", kept.has("reverse"));
    else if (state.cell !== null) setSort("cell", kept.has("reverse"));
    if (data.views.some((each) => each.id === kept.get("show"))) state.view = kept.get("show");
    for (const radio of byId("views").querySelectorAll("input")) radio.checked = radio.value === state.view;
    await refresh({ page: (Number(kept.get("page")) || 1) - 1 });
    await recallImage(kept);
  }

  async function recallImage(kept) {
    const name = kept.get("image");
    if (name === null) {
      if (viewer.isOpen) viewer.dialog.close();
      return;
    }
    try {
      const row = await table.rowOf(name, Number(kept.get("row") ?? -1), sayPart);
      if (row === null) {
        say(`There is no image ${name} in this report.`);
        return;
      }
      const [x, y] = (kept.get("at") ?? "").split(",").map(Number);
      const isPlace = Number.isFinite(x) && Number.isFinite(y);
      const where = { zoom: Number(kept.get("zoom")) || 1, x: isPlace ? x : 0.5, y: isPlace ? y : 0.5 };
      viewer.only = kept.has("only") ? Number(kept.get("only")) : null;
      viewer.isOn = kept.get("overlay") !== "off";
      await openRow(row, where);
    } catch (error) {
      sayLost(error);
    }
  }

  if (data.page === "evaluation") {
    byId("views").closest("fieldset").hidden = true;
    byId("grid").classList.add("wide-cards");
  }

  byId("wipe-all").value = data.wipe;
  byId("viewer-wipe").value = data.wipe;
  byId("stage").style.setProperty("--wipe", data.wipe);

  let typing;
  byId("tools").addEventListener("submit", (event) => event.preventDefault());
  byId("text").addEventListener("input", (event) => {
    state.text = event.target.value.trim().toLowerCase();
    clearTimeout(typing);
    typing = setTimeout(refresh, 150);
  });
  byId("class").addEventListener("change", (event) => { setClass(event.target.value === "" ? null : Number(event.target.value)); refresh(); });
  byId("least").addEventListener("input", (event) => {
    setLeast(event.target.value / 100);
    clearTimeout(typing);
    typing = setTimeout(refresh, 100);
  });
  byId("sort").addEventListener("change", (event) => { setSort(event.target.value); refresh(); });
  byId("direction").addEventListener("click", () => { setSort(state.sort, !state.reverse); refresh(); });
  byId("views").addEventListener("change", (event) => setView(event.target.value));
  byId("wipe-all").addEventListener("input", (event) => {
    state.wipe = Number(event.target.value);
    event.target.setAttribute("aria-valuetext", `${state.wipe} % image`);
    grid.setWipe(state.wipe);
  });

  for (const button of document.querySelectorAll(".class-name")) {
    button.addEventListener("click", async () => {
      setClass(Number(button.dataset.class));
      if (data.page === "output") setSort(`class-${button.dataset.class}`);
      await refresh();
      byId("images").scrollIntoView();
      byId("class").focus({ preventScroll: true });
    });
  }
  byId("show-classes")?.addEventListener("click", (event) => {
    const rest = byId("more-classes");
    rest.hidden = !rest.hidden;
    event.target.setAttribute("aria-expanded", String(!rest.hidden));
    event.target.textContent = rest.hidden ? `Show ${rest.rows.length} more` : "Show fewer";
  });

  // The confusion matrix: one of its cells is in the order of Tab, the arrow keys go to the others. Pointing at a
  // cell, or the focus on it, says its figure below; choosing it chooses its images.
  const matrix = byId("matrix");
  if (matrix) {
    const tell = (cell) => { byId("cell-text").textContent = cell.getAttribute("aria-label"); };
    const chosen = () => matrix.querySelector('.cell[aria-pressed="true"]');
    const enter = (cell) => {
      matrix.querySelector('.cell[tabindex="0"]').tabIndex = -1;
      cell.tabIndex = 0;
      tell(cell);
    };
    matrix.addEventListener("focusin", (event) => { if (event.target.matches(".cell")) enter(event.target); });
    matrix.addEventListener("pointerover", (event) => {
      const cell = event.target.closest(".cell") ?? chosen();
      if (cell) tell(cell);
    });
    matrix.addEventListener("click", (event) => {
      const cell = event.target.closest(".cell");
      if (!cell) return;
      const picked = Number(cell.dataset.cell);
      setCell(state.cell === picked ? null : picked);
      tell(cell);
      byId("cell-go").hidden = state.cell === null;
      refresh();
    });
    matrix.addEventListener("keydown", (event) => {
      const cell = event.target.closest(".cell");
      if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
      const line = [...cell.closest("tr").querySelectorAll(".cell")];
      const lines = [...matrix.querySelectorAll("tbody tr")];
      const x = line.indexOf(cell), y = lines.indexOf(cell.closest("tr"));
      const [toX, toY] = {
        ArrowLeft: [x - 1, y], ArrowRight: [x + 1, y], ArrowUp: [x, y - 1], ArrowDown: [x, y + 1], Home: [0, y], End: [line.length - 1, y],
      }[event.key] ?? [-1, -1];
      const to = toX < 0 ? null : lines[toY]?.querySelectorAll(".cell")[toX];
      if (!(event.key.startsWith("Arrow") || to)) return;
      event.preventDefault();
      to?.focus();
    });
    byId("cell-go").addEventListener("click", () => {
      byId("images").scrollIntoView();
      grid.focus();
    });
    byId("cell-clear").addEventListener("click", async () => {
      clearCell();
      await refresh();
      byId("text").focus({ preventScroll: true });
    });
  }

  function clearCell() {
    setCell(null);
    if (byId("cell-go")) byId("cell-go").hidden = true;
  }

  const failures = new fcnReport.Table(data.failures ?? { name: "failures", rows: 0, part: 1 });
  byId("more-failures")?.addEventListener("click", async (event) => {
    const body = byId("failure-rows");
    const first = body.rows.length;
    const more = Array.from({ length: Math.min(failures.part, failures.rows - first) }, (_, at) => first + at);
    await failures.loadRows(more);
    for (const row of more) {
      const name = element("th", { scope: "row", textContent: failures.get("name", row), tabIndex: -1 });
      body.append(element("tr", {}, name, element("td", { textContent: failures.get("kind", row) }), element("td", { textContent: failures.get("message", row) })));
    }
    byId("failures-shown").textContent = `${number(body.rows.length)} of ${number(failures.rows)}`;
    event.target.hidden = body.rows.length === failures.rows;
    body.rows[first].cells[0].focus();
  });

  const help = byId("help");
  const openHelp = () => { if (!help.open) help.showModal(); };
  byId("help-button").addEventListener("click", openHelp);
  byId("help-close").addEventListener("click", () => help.close());
  help.addEventListener("click", (event) => { if (event.target === help) help.close(); });
  byId("shortcuts").checked = shortcuts.on;
  byId("shortcuts").addEventListener("change", (event) => { shortcuts.on = event.target.checked; });

  function nextView() {
    setView(data.views[(data.views.indexOf(view()) + 1) % data.views.length].id);
  }

  const keys = {
    "?": openHelp,
    "/": () => byId("text").focus(),
    c: () => byId("class").focus(),
    s: () => byId("sort").focus(),
    r: () => byId("direction").click(),
    v: nextView,
    g: () => grid.focus(),
    n: () => { if (state.page + 1 < pages()) showPage(state.page + 1, { focus: true, scroll: true }); },
    p: () => { if (state.page > 0) showPage(state.page - 1, { focus: true, scroll: true }); },
    x: () => { byId("text").value = state.text = ""; setClass(null); clearCell(); refresh(); },
  };
  document.addEventListener("keydown", (event) => {
    const key = shortcuts.of(event);
    if (!key || help.open) return;
    if (key === "?" && !event.target.matches('input[type="search"]')) { openHelp(); event.preventDefault(); return; }
    if (viewer.isOpen || event.target.matches('select, input[type="search"], input[type="number"]')) return;
    if (Object.hasOwn(keys, key)) { keys[key](); event.preventDefault(); }
  });
  window.addEventListener("hashchange", () => { if (location.hash.includes("=")) recall(); });

  recall();
})();
