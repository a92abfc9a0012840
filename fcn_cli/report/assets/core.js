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

  const imagePath = (key, suffix) => `${data.images}/${key.slice(0, 2)}/${key}${suffix}`;
  const layerPath = (key, layer) => imagePath(key, `-${layer}-${data.tags[layer]}.png`);

  return {
    data, receive, load, forget, element, byId, number, percent, className, classColor, swatch, imagePath, layerPath,
  };
})();
