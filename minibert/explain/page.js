// The page: what is followed (state), and a drawing for each stage that is made anew when its part changes.

const story = JSON.parse(document.getElementById("story").textContent);
const { model, tokens, whatif, outcome } = story;
const { layers: L, heads: H, width: D, head_width: K } = model;
const N = tokens.length;
const put = (id, ...children) => document.getElementById(id)?.replaceChildren(...children.flat(9).filter(Boolean));

// --- arrays: base64 of float32, each read once, when it is first needed ---

const read = {};
function array(name) {
  if (!(name in story.arrays)) return null;
  if (!read[name]) {
    const [shape, text] = story.arrays[name], bytes = atob(text), raw = new Uint8Array(bytes.length);
    for (let i = 0; i < raw.length; i++) raw[i] = bytes.charCodeAt(i);
    read[name] = { shape, values: new Float32Array(raw.buffer) };
  }
  return read[name];
}
// The numbers under the first axes: row("layers.0.query", i, h) is one query, K numbers. null: the family has none.
function row(name, ...places) {
  const found = array(name);
  if (!found) return null;
  const size = found.shape.slice(places.length).reduce((a, b) => a * b, 1);
  const start = places.reduce((at, place, axis) => at * found.shape[axis] + place, 0) * size;
  return found.values.subarray(start, start + size);
}
const at = (layer, name) => `layers.${layer}.${name}`;
// What comes into a layer, and what goes out of it: the last array that there is.
const given = (layer, i) => row(at(layer, "out"), i) || row(at(layer, "ffn_normed"), i);
const hidden = (layer, i) =>
  layer ? given(layer - 1, i) : row("embeddings.projected", i) || row("embeddings.normed", i);

// --- what is followed, kept in the address ---

const limits = { token: N, key: N, layer: L, head: H, dimension: D };
// At first the first hidden word, or the longest piece, and the key that it looks at most.
const first = story.fills?.length ? story.fills[0].place
  : argmax(tokens.map((t) => t.special ? -1 : t.piece.replace(/\W/g, "").length));
const state = { token: first, key: argmax([...row(at(0, "probs"), 0, first)]), layer: 0, head: 0, dimension: 0, off: [] };
const swapped = {}; // place -> word, with the model behind the page

function fromAddress() {
  const told = new URLSearchParams(location.hash.slice(1)), found = {};
  for (const [name, limit] of Object.entries(limits)) {
    const value = Number(told.get(name) ?? NaN);
    if (Number.isInteger(value) && value >= 0 && value < limit) found[name] = value;
  }
  if (told.has("off")) {
    found.off = told.get("off").split(" ").filter((name) => name && known(name)).slice(0, story.live ? 999 : 1);
  }
  return found;
}
function toAddress() {
  const told = Object.keys(limits).map((name) => `${name}=${state[name]}`);
  if (state.off.length) told.push(`off=${state.off.join("+")}`);
  history.replaceState(null, "", `#${told.join("&")}`);
}

const stages = []; // [what it shows, draw]: drawn again when one of these changes
const stage = (uses, draw) => stages.push({ uses: uses.split(" "), draw, done: false });

function choose(changes) {
  const moved = Object.keys(changes).filter((name) => String(state[name]) !== String(changes[name]));
  Object.assign(state, changes);
  if (!moved.length) return;
  toAddress();
  show(moved);
}
function show(moved) {
  for (const select of document.querySelectorAll(".follow select")) select.value = state[select.dataset.test];
  for (const place of document.querySelectorAll("[data-say]")) place.textContent = words[place.dataset.say]();
  for (const one of stages) {
    if (one.done && one.uses.some((name) => moved.includes(name))) one.draw();
  }
}

// --- words ---

const piece = (i) => tokens[i].piece;
const quoted = (i) => `“${piece(i)}”`;
const named = (i) => [el("small", null, i), " ", piece(i)];
const inner = () => state.dimension % K;
const words = {
  token: () => quoted(state.token),
  key: () => quoted(state.key),
  layer: () => state.layer,
  head: () => state.head,
  dimension: () => state.dimension,
  word_dimension: () => state.dimension % model.words,
  inner,
};
const stageNames = ["in", ...range(L).map(String)];

// --- the bar ---

function selects() {
  const options = { token: named, key: named };
  for (const select of document.querySelectorAll(".follow select")) {
    const name = select.dataset.test;
    select.append(...range(limits[name]).map((i) =>
      el("option", { value: i }, options[name] ? `${i} ${piece(i)}` : i)));
    select.value = state[name];
    select.addEventListener("change", () => choose({ [name]: Number(select.value) }));
  }
  // Links to chapters move the page; the address is kept for what is followed.
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const target = document.querySelector(link.getAttribute("href"));
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    });
  }
}

// --- 1, 2: tokens and embeddings ---

stage("token key", () => {
  const keep = document.activeElement?.dataset.test;
  put("chips", tokens.map((token, i) => el(
    `button.chip${token.special ? ".special" : ""}${token.segment ? ".second" : ""}${i === state.key ? ".key" : ""}`,
    { type: "button", "data-test": `token-${i}`, "aria-pressed": String(i === state.token), onclick: () => choose({ token: i }) },
    el("small", null, token.position), el("span", null, token.piece), el("small", null, token.id))));
  if (keep?.startsWith("token-")) document.querySelector(`[data-test="${keep}"]`).focus();
});

// A norm at one dimension, with the page's own mean and variance, beside the model's number.
function normed(caption, x, name, d, own) {
  const n = x.length, mean = sum([...x]) / n;
  const variance = sum(Array.from(x, (v) => (v - mean) ** 2)) / n, root = Math.sqrt(variance + model.eps);
  const scale = row(`${name}.weight`), shift = row(`${name}.bias`);
  const centred = x[d] - mean, even = centred / root, scaled = even * scale[d];
  return [
    ledger(caption, [
      ["x", "", x[d], x[d]],
      ["less the mean μ", "−", mean, centred],
      ["over √(σ² + ε)", "÷", root, even],
      ["times the scale γ", "×", scale[d], scaled],
      ...(shift ? [["plus the shift β", "+", shift[d], scaled + shift[d]]] : []),
    ], own),
    el("p.note", null, `Of all ${n} numbers: variance σ² ${fixed(variance, decimals([variance]))}, ε ${tiny(model.eps)}.`),
  ];
}

function added(caption, terms, total) {
  let so_far = 0;
  return ledger(caption, terms.map(([name, value], i) => [name, i ? "+" : "", value, (so_far += value)]), total);
}

const TABLES = { word: "id", position: "position", segment: "segment" };
stage("token dimension", () => {
  const i = state.token, d = state.dimension % model.words;
  const parts = Object.keys(TABLES).filter((name) => array(`embeddings.${name}`));
  const vectors = parts.map((name) => row(`embeddings.${name}`, i));
  const total = row("embeddings.sum", i), out = row("embeddings.normed", i);
  const one = reach(...vectors, total), two = reach(out);
  put("embedded",
    strips([
      ...parts.map((name, p) => [p ? `+ ${name}` : name, `row ${tokens[i][TABLES[name]]}`, vectors[p], one]),
      ["= sum", "", total, one], ["normalised", "", out, two],
    ], d, (c) => choose({ dimension: c })),
    scaleNote(one, two));
  put("embedded-sum",
    el("div", null, added("The sum of the embeddings", parts.map((name, p) => [name, vectors[p][d]]), total[d])),
    el("div", null, normed("The normalised sum", total, "embeddings.norm", d, out[d])));
  const wide = row("embeddings.projected", i);
  if (wide) put("projected", strips([["widened", "", wide, reach(wide)]], state.dimension, (c) => choose({ dimension: c })));
});

// --- 3: one head ---

if (model.pre_norm) {
  stage("token layer dimension", () => {
    const { token: i, layer, dimension: d } = state;
    const x = hidden(layer, i), y = row(at(layer, "attn_normed"), i) || x, scales = [reach(x), reach(y)];
    put("first", strips([["comes in", "", x, scales[0]], ["normalised", "", y, scales[1]]], d, (c) => choose({ dimension: c })), scaleNote(...scales));
    put("first-sum", array(`${at(layer, "attn_norm")}.weight`)
      ? el("div", null, normed("The normalised vector", x, at(layer, "attn_norm"), d, y[d]))
      : el("p.note", null, "Layer 0 has no norm of its own here: the embeddings are normalised already."));
  });
}

stage("token key layer head dimension", () => {
  const { layer, head, token, key } = state, k = inner();
  put("qkv", ["query", "key", "value"].map((name) => {
    const rows = range(N).map((i) => row(at(layer, name), i, head)), most = reach(...rows);
    const chosen = name === "query" ? token : key;
    const drawn = cells(N, K, (r, c) => rows[r][c], signed(most), {
      role: "img", "aria-label": `${name} of every token: ${N} rows of ${K} numbers, full colour at ${fixed(most, 2)}`,
    });
    drawn.addEventListener("pointermove", (event) => {
      const box = drawn.getBoundingClientRect();
      const r = Math.min(N - 1, Math.floor((event.clientY - box.top) / box.height * N));
      const c = Math.min(K - 1, Math.floor((event.clientX - box.left) / box.width * K));
      drawn.title = `${piece(r)}, ${c}: ${fixed(rows[r][c])}`;
    });
    return el("figure", null, el("figcaption", null, el("b", null, name), ` marked: ${quoted(chosen)}`),
      el("span.sheet", { "--n": N, "--row": chosen, "--columns": K, "--at": k }, drawn, el("i.across"), el("i.down")),
      el("small", null, `full colour: ±${fixed(most, 2)}`));
  }));
});

// Scores of the chosen head, for one token against every key; -Infinity: out of the layer's reach.
function scores(i, head = state.head, layer = state.layer) {
  const q = row(at(layer, "query"), i, head), reachOf = model.windows[layer] || 0;
  const bias = row(at(layer, "bias"), head, i);
  return range(N).map((j) => {
    if (reachOf && Math.abs(i - j) > reachOf) return -Infinity;
    const k = row(at(layer, "key"), j, head);
    let dot = 0;
    for (let n = 0; n < K; n++) dot += q[n] * k[n];
    return dot * model.scale + (bias ? bias[j] : 0);
  });
}
function softmax(values) {
  const most = Math.max(...values), powers = values.map((s) => Math.exp(s - most)), total = sum(powers);
  return { most, powers, total, shares: powers.map((p) => p / total) };
}

stage("token key layer head dimension", () => {
  const { layer, head, token: i, key: j } = state, k = inner();
  const q = row(at(layer, "query"), i, head), key = row(at(layer, "key"), j, head);
  const products = range(K).map((n) => q[n] * key[n]), dot = sum(products);
  const scale = reach(q, key), most = largest(products), score = scores(i)[j];
  const bias = row(at(layer, "bias"), head, i);
  const pick = (c) => choose({ dimension: head * K + c });
  const digits = decimals(products), texts = adding(products, dot, digits);
  const rows = [[`the sum of ${K} products`, "", dot, dot], [`times 1 / √${K}`, "×", model.scale, dot * model.scale]];
  if (bias) rows.push(["plus what this distance adds", "+", bias[j], dot * model.scale + bias[j]]);
  put("pair",
    strips([[`query of ${quoted(i)}`, "", q, scale], [`key of ${quoted(j)}`, "", key, scale]], k, pick),
    el("div.products", { role: "img", "aria-label": `${K} products, the largest ${fixed(most)}`, "--n": K },
      products.map((value, n) => el(n === k ? "span.chosen" : "span", { title: `${n}: ${fixed(value)}`, "--v": value / (most || 1), onclick: () => pick(n) },
        el(value < 0 ? "i.less" : "i.more")))),
    el("p.sum", null, `Product ${k}: `, number(q[k]), " × ", number(key[k]), " = ", number(products[k], texts[k]), ". The largest bar is ", fixed(most), "."),
    ledger("The score", rows.map((r, n) => n === rows.length - 1 ? [...r, Number.isFinite(score) ? "score" : null] : r)),
    Number.isFinite(score) ? null
      : el("p.caution", null, `But ${quoted(j)} is out of reach: this layer looks ${model.windows[layer]} tokens to either side. The score is set to `, number(score, "−∞", "score"), "."),
    el("details", null, el("summary", null, `All ${K} products`),
      table("plain", "All products", [["dimension"], ["query"], ["key"], ["product"]],
        products.map((value, n) => [n, number(q[n]), number(key[n]), number(value, texts[n])]),
        [["sum", "", "", number(dot, fixed(dot, digits))]])));
});

// A row a key, with the row of the chosen key marked; a click chooses.
const keyRow = (j, test, ...inside) =>
  el(j === state.key ? "tr.chosen" : "tr", { "data-test": test, onclick: () => choose({ key: j }) },
    el("th", { scope: "row" }, el("button", { type: "button", class: "bare", "data-key": j, "aria-pressed": String(j === state.key) }, named(j))), ...inside);

function keeping(id, draw) { // the focus, where it stands on a row that is drawn anew
  const held = document.getElementById(id).contains(document.activeElement) ? document.activeElement.dataset.key : null;
  draw();
  if (held) document.querySelector(`#${id} [data-key="${held}"]`)?.focus();
}

stage("token key layer head", () => keeping("softmax", () => {
  const found = scores(state.token), { most, powers, total, shares } = softmax(found);
  const texts = adding(shares, 1, 4), own = row(at(state.layer, "probs"), state.head, state.token);
  const off = largest(shares.map((p, j) => p - own[j])), top = Math.max(...shares);
  const digits = decimals([total]);
  const sums = adding(powers, total, 4);
  put("softmax",
    table("keys", "Scores, powers and shares of every key",
      [["key"], ["score"], ["less the largest", "extra"], ["power of e"], ["share"], ["", "bars"]],
      range(N).map((j) => keyRow(j, `softmax-row-${j}`,
        el("td", null, number(found[j])), el("td.extra", null, number(found[j] - most)), el("td", null, number(powers[j], sums[j])),
        el("td", null, number(shares[j], texts[j], j === state.key ? "prob" : null)), el("td.bars", null, bar(shares[j], top)))),
      [["sum", "", el("td.extra"), number(total, fixed(total)), number(sum(shares), fixed(sum(shares)), "prob-sum"), el("td.bars")]]),
    el("p.note", null, `The model’s own shares ${off === 0 ? "are the same" : `differ by ${tiny(off)} at most`}.`));
}));

stage("token key layer head dimension", () => keeping("mixed", () => {
  const { layer, head, token: i } = state, k = inner();
  const { shares } = softmax(scores(i)), texts = adding(shares, 1, 4);
  const values = range(N).map((j) => row(at(layer, "value"), j, head)[k]);
  const terms = shares.map((p, j) => p * values[j]), total = sum(terms), digits = decimals(terms);
  const shown = adding(terms, total, digits), most = largest(terms);
  const own = row(at(layer, "context"), i, head);
  put("mixed",
    table("keys", "Each value times its share",
      [["key"], ["share"], [`value at ${k}`], ["product"], ["", "bars"]],
      range(N).map((j) => keyRow(j, null,
        el("td", null, number(shares[j], texts[j])), el("td", null, number(values[j])), el("td", null, number(terms[j], shown[j])),
        el("td.bars", null, bar(terms[j], most, true)))),
      [["context", "", "", number(total, fixed(total, digits), "context"), el("td.bars")],
        el("tr.own", null, el("th", { scope: "row" }, "the model’s own"), el("td", { colspan: 2 }, el("small", null, apart(own[k], total))),
          el("td", null, number(own[k], fixed(own[k], digits))), el("td.bars"))]),
    strips([["context", `of ${quoted(i)}`, own, reach(own)]], k, (c) => choose({ dimension: head * K + c })));
}));

// --- 4: the rest of the layer ---

stage("token layer head", () => {
  const { layer, token: i } = state, parts = [...row(at(layer, "parts"), i)], own = length(row(at(layer, "attn_out"), i));
  const total = sum(parts), texts = adding(parts, total, 4), most = largest(parts);
  put("parts",
    table("keys.roomy", "What each head puts into the result", [["head"], ["part"], ["", "bars"]],
      parts.map((value, h) => el(h === state.head ? "tr.chosen" : "tr", h < H ? { onclick: () => choose({ head: h }) } : null,
        el("th", { scope: "row" }, h < H ? `head ${h}` : "bias"), el("td", null, number(value, texts[h])), el("td.bars", null, bar(value, most, true)))),
      [["sum", number(total), el("td.bars")],
        el("tr.own", null, el("th", { scope: "row" }, "length of the model’s own"), el("td", null, number(own)), el("td.bars", null, el("small", null, apart(own, total))))]));
});

// A part's result added to what came in, as strips and as sums; `name`: the norm after it, where there is one.
function joined(id, base, plus, plusName, norm, out, outName) {
  const d = state.dimension, total = base.map((v, n) => v + plus[n]);
  const one = reach(base, plus, total), rows = [["comes in", "", base, one], [`+ ${plusName}`, "", plus, one], ["= sum", "", total, one]];
  const two = out ? reach(out) : one;
  if (out) rows.push([outName, "", out, two]);
  put(id, strips(rows, d, (c) => choose({ dimension: c })), scaleNote(...(out ? [one, two] : [one])));
  put(`${id}-sum`,
    el("div", null, added("The sum", [["comes in", base[d]], [plusName, plus[d]]])),
    norm && out ? el("div", null, normed("The normalised sum", total, norm, d, out[d])) : null);
}
stage("token layer dimension", () => {
  const { layer, token: i } = state, base = hidden(layer, i), plus = row(at(layer, "attn_out"), i);
  const out = row(at(layer, model.pre_norm ? "ffn_normed" : "attn_normed"), i);
  joined("attended", base, plus, "attention", at(layer, model.pre_norm ? "ffn_norm" : "attn_norm"), out, model.pre_norm ? "normalised copy" : "normalised");
});
stage("token layer dimension", () => {
  const { layer, token: i } = state, plus = row(at(layer, "ffn_out"), i);
  if (!model.pre_norm) {
    joined("fed", row(at(layer, "attn_normed"), i), plus, "feed-forward", at(layer, "ffn_norm"), row(at(layer, "ffn_normed"), i), "normalised");
    return;
  }
  const base = hidden(layer, i).map((v, n) => v + row(at(layer, "attn_out"), i)[n]);
  joined("fed", base, plus, "feed-forward", null, null, "");
  put("fed-sum", el("div", null, added("The sum", [["comes in", base[state.dimension]], ["feed-forward", plus[state.dimension]]], given(layer, i)[state.dimension])));
});

stage("token layer", () => {
  const { top, rest, bias, length: own } = story.units[state.layer][state.token];
  const left = model.ffn - top.length, lines = [...top.map(([unit, up, act, part]) => [unit, up, act, part]), [`the other ${left.toLocaleString("en")}`, null, null, rest], ["bias", null, null, bias]];
  const parts = lines.map((line) => line[3]), total = sum(parts), texts = adding(parts, total, 4), most = largest(parts);
  put("units",
    table("keys", "The strongest units", [["unit"], ["up"], [model.gated ? "bent, gated" : "bent"], ["part"], ["", "bars"]],
      lines.map(([name, up, act, part], n) => [name, up === null ? "" : number(up), act === null ? "" : number(act), number(part, texts[n]), el("td.bars", null, bar(part, most, true))]),
      [["sum", "", "", number(total), el("td.bars")],
        el("tr.own", null, el("th", { scope: "row" }, "length of the model’s own"), el("td", { colspan: 2 }, el("small", null, apart(own, total))), el("td", null, number(own)), el("td.bars"))]));
  put("bend", bend(top));
});

// The bend itself, with the strongest units on it.
function bend(top) {
  // Phi by the error function's series of Abramowitz and Stegun 7.1.26: good to 1e-7, enough for a drawing.
  const erf = (x) => {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const y = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-x * x);
    return Math.sign(x) * y;
  };
  if (model.gated || !model.activation.startsWith("gelu")) return [];
  const ups = top.map((unit) => unit[1]), low = Math.min(-3, ...ups) - 0.3, high = Math.max(3, ...ups) + 0.3;
  const W = 360, Hh = 170, y0 = -0.6, f = (x) => 0.5 * x * (1 + erf(x / Math.SQRT2));
  const x = (v) => 10 + (W - 20) * (v - low) / (high - low), y = (v) => Hh - 14 - (Hh - 24) * (v - y0) / (high - y0);
  const curve = range(121).map((n) => low + (high - low) * n / 120);
  return el("figure", null, svg("svg", { viewBox: `0 0 ${W} ${Hh}`, role: "img", "aria-label": "GELU, with the eight strongest units on it" },
    svg("path", { d: `M10 ${y(0)}H${W - 10}M${x(0)} 8V${Hh - 8}`, class: "rule" }),
    svg("path", { d: curve.map((v, n) => `${n ? "L" : "M"}${x(v).toFixed(1)} ${y(f(v)).toFixed(1)}`).join(""), class: "curve" }),
    ...top.map(([unit, up, act]) => svg("circle", { cx: x(up), cy: y(act), r: 4, class: "dot" }, svg("title", {}, `unit ${unit}: ${fixed(up)} becomes ${fixed(act)}`)))),
  el("figcaption.note", null, "GELU: what a unit weighed (across) and what it lets through (up), with the eight units on it."));
}

// --- 5: all heads ---

let moveTo = null;
const most = (layer, h, i) => argmax([...row(at(layer, "probs"), h, i)]);
stage("nothing", () => {
  const made = range(L).map((l) => range(H).map((h) => {
    const map = row(at(l, "probs"), h);
    return el("span.cell", { role: "gridcell", "data-test": `head-${l}-${h}` },
      cells(N, N, (r, c) => map[r * N + c], share, { "aria-hidden": "true" }));
  }));
  const grid = gridOf("All heads: a row a layer, a column a head", range(H), made.map((inside, l) => [l, inside]));
  moveTo = rove(grid, made, (layer, head) => choose({ layer, head }), (l, h) => put("hover", told(l, h)));
  put("grid", grid);
  put("shade", shades(...[0, 0.05, 0.25, 0.5, 1].map((p) => [share(p), p])), "share of a look; the shade grows with its root");
  mark();
});
function told(l, h) {
  const mine = row(at(l, "probs"), h, state.token), to = argmax([...mine]);
  const from = argmax(range(N).map((i) => row(at(l, "probs"), h, i)[state.token]));
  const back = row(at(l, "probs"), h, from)[state.token];
  return [el("b", null, `Layer ${l}, head ${h}. `), `${quoted(state.token)} looks most at ${quoted(to)} (${fixed(mine[to], 2)}) and is looked at most by ${quoted(from)} (${fixed(back, 2)}).`];
}
function mark() {
  for (const cell of document.querySelectorAll("#grid .cell")) {
    const [l, h] = cell.dataset.test.split("-").slice(1).map(Number), on = l === state.layer && h === state.head;
    cell.setAttribute("aria-selected", String(on));
    const to = most(l, h, state.token);
    cell.setAttribute("aria-label", `layer ${l}, head ${h}: ${piece(state.token)} looks most at ${piece(to)}, ${fixed(row(at(l, "probs"), h, state.token)[to], 2)}`);
  }
  moveTo(state.layer, state.head);
  put("hover", told(state.layer, state.head));
}
stage("token layer head", () => moveTo && mark());

stage("token key layer head", () => {
  const { layer, head, token, key } = state, pick = (r, c) => choose({ token: r, key: c });
  const names = tokens.map((t) => t.piece);
  const both = { map: [row(at(layer, "probs"), head), "looks at"], rollout: [row(at(layer, "rollout")), "draws on"] };
  for (const [id, [map, verb]] of Object.entries(both)) {
    put(id, bigMap(`${verb}: a row for each of ${N} tokens, a column for each it ${verb}`, names, (r, c) => map[r * N + c], token, key, pick,
      (r, c) => `${quoted(r)} ${verb} ${quoted(c)}: ${fixed(map[r * N + c], 3)}`));
  }
  const mine = row(at(layer, "probs"), head, token);
  put("looks",
    tinted(`What ${quoted(token)} looks at`, mine), tinted(`Who looks at ${quoted(token)}`, range(N).map((i) => row(at(layer, "probs"), head, i)[token])),
    tinted(`Rollout of ${quoted(token)}`, row(at(layer, "rollout"), token)));
});

// The text with a tint behind each token.
function tinted(title, values, sign) {
  const most = largest([...values]) || 1;
  return el("p.tinted", null, el("small", null, title), tokens.map((token, i) => el("span",
    { "--t": (Math.abs(values[i]) / most).toFixed(3), class: sign && values[i] < 0 ? "less" : "more", title: fixed(values[i], 3) }, token.piece, " ")));
}

// --- 6: depth ---

stage("token", () => {
  const i = state.token, series = (name) => range(N).map((n) => range(L + 1).map((l) => row(name, l)[n]));
  put("lines", lines("Length of the vector", stageNames, series("depth.norm"), i, 1), lines("Cosine with the stage before", stageNames.slice(1), series("depth.turn").map((values) => values.slice(1)), i, 2));
  const same = row("depth.same", i), size = L + 1;
  put("same", scroll("Cosine with itself", table(L > 8 ? "same.dense" : "same", "Cosine of the token with itself between stages",
    [["stage"], ...stageNames.map((name) => [name])],
    stageNames.map((name, r) => [name, ...stageNames.map((_, c) => {
      const value = same[r * size + c];
      return el("td", { "--t": Math.max(value, 0).toFixed(3) }, number(value, fixed(value, 2).replace(/^(−?)0\./, "$1.")));
    })]))), el("p.note", null, "“in” is what the first layer gets; 0 what layer 0 gives on."));
});

// --- 7: the answer ---

const chances = (caption, heads, rows) => table("chances", caption, [...heads.map((words) => [words]), ["", "bars"]], rows);

stage("nothing", () => {
  const many = outcome.names.length > 8, shown = range(outcome.names.length);
  const top = largest(outcome.plain);
  const sure = ["probabilities", "labels", "fills", "own", "tags"].includes(outcome.kind);
  const list = table(many ? "chances.small" : "chances", "What comes out", [["name"], ["value"], ["", "bars"]], shown.map((n) => el("tr", { "data-value": outcome.plain[n] },
    el("th", { scope: "row" }, outcome.names[n]), el("td", null, number(outcome.plain[n])), el("td.bars", null, bar(outcome.plain[n], sure ? 1 : top, outcome.plain.some((v) => v < 0))))));
  list.dataset.test = "outcome";
  if (outcome.kind === "similarity") {
    put("outcome", el("p", null, `A vector of ${D} numbers for each token; for the whole text stands ${model.pooled}.`),
      el("details", null, el("summary", null, "What is compared in the last chapter"), el("p.note", null, `Where a part is taken out: ${outcome.about}. At first all are 1.`), list));
  } else put("outcome", many ? el("details", null, el("summary", null, `${outcome.names.length} numbers`), list) : list);
});

stage("token", () => {
  const { answer, fills, lens } = story;
  if (answer) {
    put("answered", answer.value !== null
      ? el("p.big", null, number(answer.value))
      : chances("The answer", ["class", "logit", answer.kind === "multilabel" ? "probability by itself" : "probability"], answer.rows.map(([label, logit, p]) =>
        [label, number(logit), number(p), el("td.bars", null, bar(p, 1))])));
  } else if (fills?.length) {
    put("answered", el("div.fills", null, fills.map(({ place, top }) => el("div", null, el("h3.small", null, `At place ${place}`),
      chances(`Fills at place ${place}`, ["fill", "probability"], top.map(([word, p]) => [word, number(p), el("td.bars", null, bar(p, top[0][1]))]))))));
  }
  if (!lens) return;
  put("lens",
    table("lens", "What the head would have said, by stage", [["stage"], ["likeliest"], ["second"], ["third"]], stageNames.map((name, l) =>
      [name, ...lens[l][state.token].map(([word, p]) => el("td", { "--t": p.toFixed(3) }, word, " ", el("small", null, fixed(p, 2))))])),
    el("details", null, el("summary", null, "The likeliest word at every token"),
      scroll("The likeliest word at every token", table("lens", "The likeliest word at every token", [["stage"], ...tokens.map((t) => [t.piece])],
        stageNames.map((name, l) => [name, ...lens[l].map(([[word, p]]) => el("td", { "--t": p.toFixed(3), title: fixed(p, 3) }, word))])))));
});

const WAYS = { gradient: "Gradient × input", integrated: "Integrated gradients", occlusion: "Occlusion" };
let target = 0;
function carried() {
  const found = story.attribution, one = found[target];
  const most = Object.fromEntries(Object.keys(WAYS).map((way) => [way, largest(one[way])]));
  const digits = 4, texts = adding(one.integrated, one.sum, digits);
  put("carried",
    found.length > 1 ? el("label.pick", null, "Answer ", el("select", { "data-test": "target", onchange: (event) => { target = Number(event.target.value); carried(); document.querySelector("[data-test=target]").focus(); } },
      found.map(({ target: name }, n) => el("option", { value: n, selected: n === target }, name)))) : null,
    Object.entries(WAYS).map(([way, title]) => tinted(title, one[way], true)),
    table("ways", "Three attributions of each token", [["token"], ...Object.values(WAYS).flatMap((title) => [[title], ["", "bars"]])],
      range(N).map((i) => [named(i), ...Object.keys(WAYS).flatMap((way) =>
        [number(one[way][i], way === "integrated" ? texts[i] : fixed(one[way][i])), el("td.bars", null, bar(one[way][i], most[way], true))])])),
    ledger("Integrated gradients add up", [["a text of [PAD]", "", one.base, one.base], ["the sum of integrated gradients", "+", one.sum, one.base + one.sum]]),
    el("p.sum", null, "The model’s own number for the text is ", number(one.logit, fixed(one.logit, decimals([one.logit]))), "; missing is ", number(one.missing, one.missing ? tiny(Math.abs(one.missing)) : "nothing", "attribution-check"), ` (${one.steps} steps).`));
}
if (story.attribution?.length) stage("nothing", carried);

// --- 8: what if ---

// A name is "layer.head", "layer", or "positions".
const known = (name) => name === "positions" ? whatif.positions !== null
  : /^\d+(\.\d+)?$/.test(name) && Number(name.split(".")[0]) < L && Number(name.split(".")[1] ?? 0) < H;
const partsOf = (name) => name.split(".").map(Number);
const nameOf = (name) => name === "positions" ? "the positions" : name.includes(".") ? `head ${partsOf(name)[1]} of layer ${partsOf(name)[0]}` : `layer ${name}`;
const shipped = (from, name) => name === "positions" ? from.positions
  : name.includes(".") ? from.heads[partsOf(name)[0]][partsOf(name)[1]] : from.layers[partsOf(name)[0]];

// Without the model behind the page one part at a time; with it any.
function toggle(name) {
  const rest = state.off.filter((one) => one !== name), on = rest.length === state.off.length;
  choose({ off: on ? [...(story.live ? rest : []), name] : rest });
}

stage("nothing", () => {
  // Whole layers change much more than heads: each has a scale of its own.
  const change = whatif.change, tops = { head: Math.max(...change.heads.flat()) || 1, layer: Math.max(...change.layers) || 1 };
  const kindOf = (name) => name.includes(".") ? "head" : "layer";
  const made = range(L).map((l) => [...range(H).map((h) => `${l}.${h}`), `${l}`].map((name) => {
    const value = shipped(change, name);
    return el(name.includes(".") ? "span.cell" : "span.cell.layer", {
      role: "gridcell", "data-test": `off-${name.replace(".", "-")}`, "data-name": name, "data-value": value, "aria-selected": "false",
      "aria-label": `without ${nameOf(name)}: change ${fixed(value)}`, "--c": `rgb(${share(value / tops[kindOf(name)]).map(Math.round).join(",")})`,
    });
  }));
  const grid = gridOf("What changes without each head: a row a layer, a column a head, the last column the layer whole", [...range(H), "layer"], made.map((inside, l) => [l, inside]));
  const name = (l, c) => c < H ? `${l}.${c}` : `${l}`;
  rove(grid, made, (l, c) => toggle(name(l, c)), (l, c) => put("off-hover", `Without ${nameOf(name(l, c))}: change ${fixed(shipped(change, name(l, c)))}.`))(0, 0);
  put("off", grid);
  put("off-hover", "Move over the cells, or choose one.");
  put("off-shade", Object.entries(tops).map(([kind, top]) => el("div.shade", null, el("span", null, kind === "head" ? "heads" : "layers"), shades(...[0, 0.25, 1].map((t) => [share(t), fixed(t * top)])))), "change; the shade grows with its root");
});

let asked = 0, taken = {}; // the words that the model took last
async function changed() {
  for (const cell of document.querySelectorAll("#off .cell")) cell.setAttribute("aria-selected", String(state.off.includes(cell.dataset.name)));
  document.getElementById("off-positions").setAttribute("aria-pressed", String(state.off.includes("positions")));
  const places = Object.keys(swapped), mine = ++asked;
  if (!places.length) taken = {};
  if (!state.off.length && !places.length) return outcomes(null);
  if (state.off.length === 1 && !places.length) return outcomes(shipped(whatif, state.off[0]), shipped(whatif.change, state.off[0]));
  put("changed", el("p.note", null, "The model is running …"));
  let reply;
  try {
    const answer = await fetch("/change", {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        heads: state.off.filter((n) => n.includes(".")).map(partsOf), layers: state.off.filter((n) => /^\d+$/.test(n)).map(Number),
        positions: state.off.includes("positions"), tokens: swapped,
      }),
    });
    reply = await answer.json();
  } catch {
    reply = { error: "The server behind this page does not answer. Is minibert explain --live still running?" };
  }
  if (mine !== asked) return; // something else was chosen meanwhile
  if (reply.error) { // what was refused is not kept
    put("changed", el("p.caution", { role: "alert" }, reply.error));
    Object.keys(swapped).forEach((place) => delete swapped[place]);
    Object.assign(swapped, taken);
    return;
  }
  taken = { ...swapped };
  outcomes(reply.values, reply.change, reply);
}

function undo() {
  return Object.entries(swapped).map(([place, word]) => el("button", { type: "button", onclick: () => { delete swapped[place]; changed(); } },
    `Put ${quoted(place)} back for “${word}”`));
}

function outcomes(values, change, reply) {
  const names = outcome.names, said = [
    ...(state.off.length ? [`without ${state.off.map(nameOf).join(", ")}`] : []),
    ...Object.entries(swapped).map(([place, word]) => `with “${word}” for ${quoted(place)}`),
  ].join(", ");
  if (!values) {
    put("changed", el("p.note", null, "Nothing is taken out. Choose a cell."));
    return;
  }
  const digits = decimals([...outcome.plain]), steps = values.map((v, n) => v - outcome.plain[n]), top = largest(steps);
  put("changed",
    el("h3.small", null, said[0].toUpperCase() + said.slice(1)),
    reply?.tokens ? el("p.tinted", null, reply.tokens.map((word, i) => el("span", { "--t": String(i) in swapped ? 1 : 0, class: "more" }, word, " "))) : null,
    table("chances", "The outcome before and after", [["what comes out"], ["before"], ["after"], ["change"], ["", "bars"]],
      names.map((name, n) => el("tr", { "data-test": `after-${n}`, "data-value": values[n] }, el("th", { scope: "row" }, name),
        el("td", null, number(outcome.plain[n])), el("td", null, number(values[n])), el("td", null, number(steps[n])), el("td.bars", null, bar(steps[n], top, true))))),
    el("p.note", null, "Change: ", number(change, fixed(change), "change"), "."),
    reply?.fills?.map(({ place, top: list }) => el("p.note", null, `At place ${place} now: ${list.map(([word, p]) => `${word} ${fixed(p, 2)}`).join(", ")}`)),
    undo());
}
stage("off", changed);

function ifs() {
  document.getElementById("off-positions").addEventListener("click", () => toggle("positions"));
  document.getElementById("off-positions").hidden = whatif.positions === null;
  document.getElementById("off-none").addEventListener("click", () => {
    Object.keys(swapped).forEach((place) => delete swapped[place]);
    state.off = [];
    toAddress();
    changed();
  });
  const form = document.getElementById("swap");
  if (!form) return;
  document.getElementById("swap-place").append(...range(N).filter((i) => !tokens[i].special).map((i) => el("option", { value: i }, `${i} ${piece(i)}`)));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const word = document.getElementById("swap-word").value.trim();
    if (word) swapped[document.getElementById("swap-place").value] = word;
    changed();
  });
}

// --- start: what is seen first at once, the rest when the browser has time ---

function drawAll() {
  for (const one of stages) if (!one.done) { one.draw(); one.done = true; }
}
function again() { // colours changed, or paper is asked for
  mix();
  for (const one of stages) if (one.done) one.draw();
}
function start() {
  mix();
  Object.assign(state, fromAddress());
  selects();
  ifs();
  show([]);
  if (innerWidth < 900) document.querySelectorAll("details.code").forEach((one) => { one.open = false; });
  const idle = (run) => setTimeout(run, 1);
  const next = () => {
    const end = performance.now() + 25;
    for (const one of stages.filter((s) => !s.done)) {
      if (performance.now() > end) return idle(next);
      one.draw();
      one.done = true;
    }
    document.documentElement.dataset.ready = "";
  };
  next();
  addEventListener("hashchange", () => choose(fromAddress()));
  for (const media of ["(prefers-color-scheme: dark)", "print"]) matchMedia(media).addEventListener("change", again);
  addEventListener("beforeprint", drawAll);
}
start();
