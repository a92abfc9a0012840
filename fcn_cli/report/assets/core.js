// What the other scripts share: the page's data, loading of scripts, small helpers. Classic scripts, because a
// page from file:// can neither fetch nor import.
"use strict";

window.fcnReport = (() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const received = new Map();
  const expected = new Map();

  // Every data script calls this.
  function receive(name, value) {
    received.set(name, value);
  }

  // Load a data script once; resolves to its value, rejects when it is missing.
  function load(name, path) {
    if (!expected.has(name)) {
      expected.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = path;
        script.addEventListener("load", () => {
          script.remove();
          if (received.has(name)) resolve(received.get(name));
          else reject(new Error(`${path} has no data`));
          received.delete(name);
        });
        script.addEventListener("error", () => {
          script.remove();
          expected.delete(name);
          reject(new Error(`${path} is missing`));
        });
        document.head.append(script);
      }));
    }
    return expected.get(name);
  }

  function forget(name) {
    expected.delete(name);
  }

  // Long work goes on in slices, and between them the page answers: `if (slices.isOver()) await slices.next();`
  const slices = (() => {
    const LONGEST = 8;
    const channel = new MessageChannel();
    const waiting = [];
    let started = -Infinity;
    channel.port1.onmessage = () => {
      started = performance.now();
      waiting.shift()();
    };
    return {
      isOver: () => performance.now() - started > LONGEST,
      next: () => new Promise((resolve) => { waiting.push(resolve); channel.port2.postMessage(null); }),
    };
  })();

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.includes("-") || name === "role") made.setAttribute(name, value);
      else made[name] = value;
    }
    made.append(...children);
    return made;
  }

  const byId = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat("en").format;

  function percent(share) {
    if (share > 0 && share < 0.001) return "< 0.1 %";
    if (share < 1 && share > 0.999) return "> 99.9 %";
    return `${(100 * share).toFixed(1)} %`;
  }

  const classes = new Map(data.classes.map((each) => [each.id, each]));
  const className = (id) => (classes.has(id) ? classes.get(id).name : id === 255 ? "void" : `class_${id}`);
  const classColor = (id) => (classes.has(id) ? classes.get(id).color : id === 0 ? data.zero.color : "#e0e0c0");

  function swatch(id) {
    const made = element("span", { className: "swatch", "aria-hidden": "true" });
    made.style.background = classColor(id);
    return made;
  }

  // A cell of the confusion matrix is one number: 256 times the true class, and the predicted one.
  const cellOf = (cell) => [Math.floor(cell / 256), cell % 256];
  const cellName = (cell) => {
    const [truth, predicted] = cellOf(cell);
    return truth === predicted ? `${className(truth)}, right` : `${className(truth)} taken for ${className(predicted)}`;
  };

  // Shortcuts of a single character, which speech input types by mistake, can be switched off (WCAG 2.1.4).
  const shortcuts = (() => {
    const NAME = "fcn-report-shortcuts";
    let on = true;
    try { on = localStorage.getItem(NAME) !== "off"; } catch { /* The browser keeps nothing for this page. */ }
    return {
      get on() { return on; },
      set on(value) {
        on = value;
        try { localStorage.setItem(NAME, on ? "on" : "off"); } catch { /* As above. */ }
      },
      // The key of an event, if it is a shortcut now: a character only while these are on.
      of(event) {
        if (event.altKey || event.ctrlKey || event.metaKey) return null;
        return event.key.length === 1 && !on ? null : event.key;
      },
    };
  })();

  return {
    data, receive, load, forget, slices, element, byId, number, percent, className, classColor, swatch, cellOf, cellName, shortcuts,
  };
})();
