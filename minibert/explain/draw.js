// Numbers in words and colours: elements, strips, maps, bars, sums. Knows nothing of the story.

// An element with attributes and children. Texts become text nodes, never markup.
function el(name, attributes, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) made.style.setProperty(key, value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const range = (n) => Array.from({ length: n }, (_, i) => i);
const sum = (values) => values.reduce((a, b) => a + b, 0);
const largest = (values) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
const length = (values) => Math.sqrt(sum(Array.from(values, (v) => v * v)));
const argmax = (values) => values.reduce((best, v, i) => (v > values[best] ? i : best), 0);

// --- numbers ---

const minus = (text) => text.replace(/-/g, "−");
const fixed = (value, digits = 4) => {
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  const text = value.toFixed(digits);
  return minus(/^-0\.?0*$/.test(text) ? text.slice(1) : text);
};
const raised = (power) => Array.from(String(power), (c) => c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("");
const tiny = (value) => {
  const [digit, power] = value.toExponential(0).split("e");
  return `${minus(digit)}\u00a0·\u00a010${raised(Number(power))}`;
};

// As many decimals as give the largest of these numbers four digits, but four at least.
const decimals = (values) => {
  const most = largest(values.filter(Number.isFinite));
  return most > 0 ? Math.max(4, Math.min(7, 3 - Math.floor(Math.log10(most)))) : 4;
};

// Texts of numbers that add up as shown: those nearest to their next digit give way by one. A gap
// that rounding can't explain stays to be seen.
function adding(values, total, digits) {
  const unit = 10 ** digits, whole = values.map((v) => Math.round(v * unit));
  const gap = Math.round(total * unit) - sum(whole), sign = Math.sign(gap);
  if (Math.abs(gap) <= values.length / 2 + 1) {
    const rest = (i) => sign * (values[i] * unit - whole[i]);
    const order = range(values.length).sort((a, b) => rest(b) - rest(a));
    order.slice(0, Math.abs(gap)).forEach((i) => { whole[i] += sign; });
  }
  return whole.map((w) => fixed(w / unit, digits));
}

// A number as text, with all its digits where a program or a pointer looks for them.
const number = (value, text, test) =>
  el("span.n", { "data-value": String(value), "data-test": test || null, title: minus(String(value)) }, text ?? fixed(value));

// --- colours: one blue for shares, blue and orange for signed numbers ---

let colours = {};
function mix() {
  const css = getComputedStyle(document.documentElement);
  const triple = (name) => css.getPropertyValue(name).split(",").map(Number);
  colours = { none: triple("--zero-rgb"), more: triple("--more-rgb"), less: triple("--less-rgb") };
}
const between = (from, to, t) => from.map((c, i) => c + (to[i] - c) * Math.min(Math.max(t, 0), 1));
const share = (p) => between(colours.none, colours.more, Math.sqrt(p)); // the root lets small shares be seen
const signed = (most) => (v) => between(colours.none, v < 0 ? colours.less : colours.more, Math.abs(v) / (most || 1));

// What a strip's full colour stands for: nearly the largest number, so that one outlier can't pale the rest.
function reach(...vectors) {
  const sizes = vectors.flatMap((v) => Array.from(v, Math.abs)).sort((a, b) => a - b);
  return sizes[Math.floor(0.985 * (sizes.length - 1))] || 1;
}

// rows x columns numbers, a pixel each; style sheets make the pixels large.
function cells(rows, columns, at, colour, attributes) {
  const canvas = el("canvas", { width: columns, height: rows, ...attributes });
  const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const [red, green, blue] = colour(at(r, c)), place = 4 * (r * columns + c);
      image.data[place] = red;
      image.data[place + 1] = green;
      image.data[place + 2] = blue;
      image.data[place + 3] = 255;
    }
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

// --- vectors ---

// Vectors under one another, a strip each: [name, note, values, scale]; `mark` is the chosen place.
function strips(rows, mark, choose) {
  return el("div.strips", null, rows.map(([name, note, values, scale]) => {
    const drawn = cells(1, values.length, (_, c) => values[c], signed(scale), {
      role: "img",
      "aria-label": `${name}: ${values.length} numbers, length ${fixed(length(values), 2)}; at ${mark}: ${fixed(values[mark])}`,
    });
    const place = (event) => {
      const box = drawn.getBoundingClientRect();
      return Math.min(values.length - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * values.length)));
    };
    if (choose) drawn.addEventListener("click", (event) => choose(place(event)));
    drawn.addEventListener("pointermove", (event) => { drawn.title = `${place(event)}: ${fixed(values[place(event)])}`; });
    return [
      el("span.name", null, name, note ? el("small", null, note) : null),
      el("span.strip", { "--n": values.length, "--at": mark }, drawn, el("i")),
      el("span.value", null, number(values[mark])),
    ];
  }));
}

const scaleNote = (...scales) =>
  el("p.note", null, "Full colour stands for ", [...new Set(scales.map((s) => `±${fixed(s, 2)}`))].join(" and "),
    scales.length > 1 ? " (the last strip)" : "", ".");

// --- sums ---

// One calculation, a line a step: [words, sign, number, result, test]. A number that is added is shown as the
// difference of the results beside it, so that the column adds up as it stands.
function ledger(caption, rows, own) {
  const adds = ([, sign]) => sign !== "×" && sign !== "÷";
  const digits = decimals(rows.filter(adds).map((step) => step[2]));
  let before = 0, places = digits;
  const body = rows.map((step) => {
    const [words, sign, value, result, test] = step;
    places = adds(step) ? digits : 4;
    const unit = 10 ** places, gap = (Math.round(result * unit) - Math.round(before * unit)) / unit * (sign === "−" ? -1 : 1);
    let text = adds(step) ? fixed(Math.abs(gap - value) < 1.5 / unit ? gap : value, places) : fixed(value, decimals([value]));
    if (text.startsWith("−")) text = `(${text})`;
    before = result;
    return el("tr", null, el("th", { scope: "row" }, words), el("td.sign", null, sign),
      el("td", null, sign ? number(value, text) : null), el("td.result", null, number(result, fixed(result, places), test)));
  });
  if (own !== undefined) {
    body.push(el("tr.own", null, el("th", { scope: "row", colspan: 3 }, `the model’s own: ${apart(own, before)}`), el("td", null, number(own, fixed(own, places)))));
  }
  return el("table.ledger", null, el("caption.away", null, caption),
    el("thead.away", null, el("tr", null, ["step", "sign", "number", "result"].map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", null, body));
}

// How far the model's own number and the page's are apart, in words.
const apart = (own, found) => {
  const off = Math.abs(own - found);
  return off === 0 ? "no difference" : `differs by ${tiny(off)}`;
};

// A bar from 0, to the right or, where numbers have signs, to either side.
const bar = (value, most, both) =>
  el(both ? "span.bar.both" : "span.bar", { "--v": Math.min(Math.abs(value) / (most || 1), 1) },
    el(value < 0 ? "i.less" : "i.more"));

// A table: heads [words, class], rows of cells; what is not yet a cell becomes one.
function table(name, caption, heads, rows, foot) {
  const cell = (made, i) => made instanceof Element && /^T[DH]$/.test(made.tagName) ? made
    : el(i ? "td" : "th", { scope: i ? null : "row", class: heads[i][1] || null }, made);
  const line = (row) => row instanceof Element ? row : el("tr", null, row.map(cell));
  return el(`table.${name}`, null, el("caption.away", null, caption),
    el("thead", null, el("tr", null, heads.map(([words, kind]) => el("th", { scope: "col", class: kind || null }, words || el("span.away", null, "as a bar"))))),
    el("tbody", null, rows.map(line)), foot ? el("tfoot", null, foot.map(line)) : null);
}

// What is wider than its place: scrolls by itself, with the keyboard too.
const scroll = (label, ...inside) => el("div.scroll", { role: "region", tabindex: 0, "aria-label": label }, ...inside);

// --- maps ---

// A grid of cells that is one stop of the Tab key: arrows move inside, Enter and Space choose.
function rove(grid, cellsByRow, choose, look) {
  let here = [0, 0];
  const set = (r, c, focus) => {
    cellsByRow[here[0]][here[1]].tabIndex = -1;
    here = [r, c];
    cellsByRow[r][c].tabIndex = 0;
    if (focus) cellsByRow[r][c].focus();
  };
  cellsByRow.forEach((row, r) => row.forEach((cell, c) => {
    cell.tabIndex = -1;
    cell.addEventListener("click", () => { set(r, c); choose(r, c); });
    cell.addEventListener("focus", () => { set(r, c); look(r, c); });
    cell.addEventListener("pointerenter", () => look(r, c));
  }));
  const keys = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  grid.addEventListener("keydown", (event) => {
    const rows = cellsByRow.length, columns = cellsByRow[0].length;
    if (keys[event.key]) {
      const [dr, dc] = keys[event.key];
      set(Math.min(Math.max(here[0] + dr, 0), rows - 1), Math.min(Math.max(here[1] + dc, 0), columns - 1), true);
    } else if (event.key === "Home" || event.key === "End") set(here[0], event.key === "Home" ? 0 : columns - 1, true);
    else if (event.key === "Enter" || event.key === " ") choose(...here);
    else return;
    event.preventDefault();
  });
  return set;
}

// The grid's frame: a head of columns, then rows of [name, cells].
const gridOf = (label, columns, rows) =>
  el("div.grid", { role: "grid", "aria-label": label, "--columns": columns.length },
    el("div.row", { role: "row" }, el("span", { role: "columnheader" }, el("span.away", null, "layer")),
      columns.map((name) => el("span", { role: "columnheader" }, name))),
    rows.map(([name, inside]) => el("div.row", { role: "row" }, el("span", { role: "rowheader" }, name), inside)));

// A large map with its tokens at both sides; the chosen row and column are framed.
function bigMap(label, names, at, row, column, choose, tell) {
  const n = names.length, drawn = cells(n, n, at, share, { role: "img", "aria-label": label });
  const place = (event) => {
    const box = drawn.getBoundingClientRect();
    const step = (v, size) => Math.min(n - 1, Math.max(0, Math.floor(v / size * n)));
    return [step(event.clientY - box.top, box.height), step(event.clientX - box.left, box.width)];
  };
  const said = el("p.note", null, tell(row, column));
  drawn.addEventListener("pointermove", (event) => said.replaceChildren(tell(...place(event))));
  drawn.addEventListener("pointerleave", () => said.replaceChildren(tell(row, column)));
  drawn.addEventListener("click", (event) => choose(...place(event)));
  const side = (kind, chosen) => el(`span.${kind}`, { "aria-hidden": "true" },
    names.map((name, i) => el(i === chosen ? "b" : "span", null, name)));
  return [
    el(n > 24 ? "div.bigmap.dense" : "div.bigmap", { "--n": n, "--row": row, "--column": column },
      side("top", column), side("left", row),
      el("span.field", null, drawn, el("i.across"), el("i.down"))),
    said,
  ];
}

// A legend of shades: [shade, words] each.
const shades = (...pairs) => pairs.map(([colour, words]) =>
  el("span", null, el("i", { "--c": `rgb(${colour.map(Math.round).join(",")})` }), words));

// --- lines ---

function svg(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// One line a token over the stages; the chosen one in colour with its numbers.
function lines(title, stages, series, chosen, digits) {
  const W = 360, Hh = 190, left = 34, right = 12, top = 24, bottom = 26;
  const all = series.flat(), low = Math.min(...all), high = Math.max(...all), room = (high - low) || 1;
  const x = (i) => left + (W - left - right) * (stages.length > 1 ? i / (stages.length - 1) : 0);
  const y = (v) => Hh - bottom - (Hh - top - bottom) * (v - low) / room;
  const path = (values) => values.map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const skip = Math.ceil(stages.length / 9);
  const mine = series[chosen];
  return el("figure", null, el("figcaption", null, title), svg("svg", {
    viewBox: `0 0 ${W} ${Hh}`, role: "img",
    "aria-label": `${title}: ${stages.map((s, i) => `${s} ${fixed(mine[i], digits)}`).join(", ")}`,
  },
    ...[low, high].map((v) => svg("text", { x: left - 6, y: y(v) + 4, class: "tick end" }, fixed(v, digits))),
    ...[low, high].map((v) => svg("path", { d: `M${left} ${y(v)}H${W - right}`, class: "rule" })),
    ...stages.map((s, i) => i % skip ? "" : svg("text", { x: x(i), y: Hh - 8, class: "tick mid" }, s)),
    ...series.map((values) => svg("path", { d: path(values), class: "other" })),
    svg("path", { d: path(mine), class: "mine" }),
    ...mine.map((v, i) => svg("circle", { cx: x(i), cy: y(v), r: 3.2, class: "dot" })),
    ...mine.map((v, i) => i % skip ? "" : svg("text", { x: x(i), y: y(v) - 8, class: i ? "said mid" : "said" }, fixed(v, digits)))));
}
