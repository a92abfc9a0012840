// Joins the parts: the controls, the pages of photos, the keys, the address.
"use strict";

// What the two kinds of page say of a class of a photo, and of a photo.
if (fcnReport.data.kind === "evaluation") {
  fcnReport.classText = (table, row, id, share) => {
    const pairs = table.get("ious", row);
    for (let at = 0; at < pairs.length; at += 2) if (pairs[at] === id) return `IoU ${fcnReport.percent(pairs[at + 1])}`;
    return fcnReport.percent(share);
  };
  fcnReport.factsOf = (table, row) => {
    const figure = (value) => (value === null ? "not defined" : fcnReport.percent(value));
    const pixels = table.get("width", row) * table.get("height", row);
    const mistakes = table.get("mistakes", row).map(([truth, predicted, count]) =>
      `${fcnReport.className(truth)} taken for ${fcnReport.className(predicted)}: ${fcnReport.percent(count / pixels)} of the pixels`);
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
    const kinds = table.get("kinds", row), stem = table.get("stem", row);
    return fcnReport.data.outputs
      .filter((_, bit) => kinds & (1 << bit))
      .map(({ kind, suffix }) => [kind, `${kind}/${stem}${suffix}`]);
  };
}

(() => {
  const { data, byId, element, number } = fcnReport;
  const table = new fcnReport.Table(data.photos);
  const filters = new fcnReport.Filters(table);
  const state = { text: "", id: null, least: 0, sort: byId("sort").value, reverse: false, view: data.view, wipe: data.wipe, page: 0 };
  let rows = new Uint32Array(0);
  let asked = 0;
  let drawn = 0;

  const grid = new fcnReport.Grid(table, byId("grid"), { open: (row) => openRow(row) });
  const viewer = new fcnReport.Viewer(table, { step, closed: (row) => leaveViewer(row) });
  const view = () => data.views.find((each) => each.id === state.view);
  const pages = () => Math.max(1, Math.ceil(rows.length / data.perPage));

  const say = (text) => { byId("status").textContent = text; };

  // Find the rows to show, then show a page of them; what is asked for later wins.
  async function refresh({ page = 0, focus = false } = {}) {
    const mine = (asked += 1);
    const slow = setTimeout(() => say("Loading the table…"), 200);
    try {
      const found = await filters.rows(state, (part) => { if (mine === asked && part < 1) say(`Loading the table: ${Math.round(100 * part)} %`); });
      if (mine !== asked) return;
      rows = found;
      await showPage(page, { focus });
    } catch (error) {
      say(`The table cannot be loaded: ${error.message}. Make the report again.`);
    } finally {
      clearTimeout(slow);
    }
  }

  async function showPage(page, { focus = false, scroll = false } = {}) {
    const mine = (drawn += 1);
    state.page = Math.max(0, Math.min(pages() - 1, page));
    const shown = rows.slice(state.page * data.perPage, (state.page + 1) * data.perPage);
    await table.loadRows(shown);
    if (mine !== drawn) return;
    grid.show(shown, { view: view(), wipe: state.wipe, order: filters.order(state.sort) });
    const filtered = state.text || state.id !== null;
    if (!shown.length) byId("grid").replaceChildren(element("li", { className: "empty", textContent: filtered ? "No photo is like that." : "There is no photo yet." }));
    say(filtered ? `${number(rows.length)} of ${number(table.rows)} photos` : `${number(table.rows)} ${table.rows === 1 ? "photo" : "photos"}`);
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

  function openRow(row) {
    const place = rows.indexOf(row);
    return viewer.open(row, `${number(place + 1)} of ${number(rows.length)}`, view());
  }

  // The photo before or after the one in the large view, on whatever page it is.
  async function step(by) {
    const place = rows.indexOf(viewer.row) + by;
    if (place < 0 || place >= rows.length) return;
    await table.loadRows([rows[place]]);
    await openRow(rows[place]);
  }

  async function leaveViewer(row) {
    const page = Math.floor(rows.indexOf(row) / data.perPage);
    if (page !== state.page) await showPage(page);
    grid.focus(row);
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

  function setSort(sort, reverse = false) {
    state.sort = sort;
    state.reverse = reverse;
    byId("sort").value = sort;
    const down = filters.order(sort).descending !== reverse;
    const button = byId("direction");
    button.textContent = down ? "↓" : "↑";
    button.setAttribute("aria-label", `Order: ${down ? "largest first" : "smallest first"}. Reverse it`);
    button.title = down ? "Largest, latest or last first" : "Smallest, earliest or first first";
  }

  // The address keeps what is chosen: reload, the back button and a bookmark come back to it.
  function remember() {
    const kept = new URLSearchParams();
    if (state.text) kept.set("name", state.text);
    if (state.id !== null) kept.set("class", state.id);
    if (state.least) kept.set("least", state.least);
    if (state.sort !== byId("sort").options[0].value || state.reverse) kept.set("sort", state.sort);
    if (state.reverse) kept.set("reverse", 1);
    if (state.view !== data.view) kept.set("show", state.view);
    if (state.page) kept.set("page", state.page + 1);
    const hash = kept.toString();
    if (hash || location.hash.includes("=")) history.replaceState(null, "", `#${hash || "photos"}`);
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    const offers = (select, value) => [...byId(select).options].some((option) => option.value === value);
    state.text = kept.get("name") ?? "";
    byId("text").value = state.text;
    setClass(kept.has("class") && offers("class", kept.get("class")) ? Number(kept.get("class")) : null);
    setLeast(state.id === null ? 0 : Math.max(0, Math.min(1, Number(kept.get("least")) || 0)));
    setSort(offers("sort", kept.get("sort")) ? kept.get("sort") : byId("sort").options[0].value, kept.has("reverse"));
    if (data.views.some((each) => each.id === kept.get("show"))) state.view = kept.get("show");
    for (const radio of byId("views").querySelectorAll("input")) radio.checked = radio.value === state.view;
    return refresh({ page: (Number(kept.get("page")) || 1) - 1 });
  }

  if (data.kind === "evaluation") {
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
    event.target.setAttribute("aria-valuetext", `${state.wipe} % photo`);
    grid.setWipe(state.wipe);
  });

  for (const button of document.querySelectorAll(".class-name")) {
    button.addEventListener("click", async () => {
      setClass(Number(button.dataset.class));
      if (data.kind === "photos") setSort(`class-${button.dataset.class}`);
      await refresh();
      byId("photos").scrollIntoView();
      byId("class").focus({ preventScroll: true });
    });
  }
  byId("show-classes")?.addEventListener("click", (event) => {
    const rest = byId("more-classes");
    rest.hidden = !rest.hidden;
    event.target.setAttribute("aria-expanded", String(!rest.hidden));
    event.target.textContent = rest.hidden ? `Show ${rest.rows.length} more` : "Show fewer";
  });

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
    x: () => { byId("text").value = state.text = ""; setClass(null); refresh(); },
  };
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || help.open) return;
    if (event.key === "?" && !event.target.matches('input[type="search"]')) { openHelp(); event.preventDefault(); return; }
    if (viewer.isOpen || event.target.matches('select, input[type="search"], input[type="number"]')) return;
    if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
  });
  window.addEventListener("hashchange", () => { if (location.hash.includes("=")) recall(); });

  recall();
})();
