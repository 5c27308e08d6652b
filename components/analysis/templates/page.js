"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [rows, columns] = data.grid;
const patches = rows * columns, tokens = data.cls + patches;
const $ = (id) => document.getElementById(id);
const state = { image: 0, layer: 0, codec: 0, rate: 0, token: data.cls + Math.floor(rows / 2) * columns + Math.floor(columns / 2) };
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const unpacked = new Map();

// Bytes become attention when an image is first shown: all of them at once would take seconds.
function attention(version) {
  if (!unpacked.has(version)) unpacked.set(version, bytes(version.attention));
  const start = state.layer * tokens * tokens, top = version.tops[state.layer];
  const steps = unpacked.get(version);
  return (query, key) => top * (steps[start + query * tokens + key] / 255) ** 2;
}

function similarity(version, layer, patch) {
  const packed = bytes(version.similarity);
  return new DataView(packed.buffer).getInt16(2 * (layer * patches + patch), true) / 32767;
}

function versionsOf(image) {
  const codec = data.codecs[state.codec];
  return image.versions.filter((version) => version.codec === codec && version.codec !== null).sort((a, b) => a.bpp - b.bpp);
}

const PANELS = [["plain", "The image"], ["looks", "Where it looks"], ["looked", "Who looks at it"]];
for (const column of document.querySelectorAll(".column")) {
  const pair = document.createElement("div");
  pair.className = "pair";
  for (const [kind, title] of PANELS) {
    const figure = document.createElement("figure");
    figure.dataset.kind = kind;
    figure.className = kind;
    figure.innerHTML = `<div class="stage"><img alt=""><canvas width="${columns}" height="${rows}"></canvas></div><figcaption></figcaption>`;
    figure.querySelector("img").alt = `${title}, ${column.dataset.side} image`;
    figure.querySelector(".stage").addEventListener("click", (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      const row = Math.min(rows - 1, Math.max(0, Math.floor(rows * (event.clientY - box.top) / box.height)));
      const place = Math.min(columns - 1, Math.max(0, Math.floor(columns * (event.clientX - box.left) / box.width)));
      choose(data.cls + row * columns + place);
    });
    pair.append(figure);
  }
  column.append(pair);
}

const MARK = [224, 33, 138];
const nameOf = (token) => token < data.cls ? "CLS" : `row ${Math.floor((token - data.cls) / columns)}, column ${(token - data.cls) % columns}`;
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function draw() {
  const image = data.images[state.image], others = versionsOf(image);
  state.rate = Math.min(state.rate, Math.max(0, others.length - 1));
  const shown = { raw: image.versions[0], compressed: others[state.rate] };
  const views = {};
  for (const [side, version] of Object.entries(shown)) {
    if (!version) continue;
    const at = attention(version);
    views[side] = {
      version,
      looks: Array.from({ length: tokens }, (_, key) => at(state.token, key)),
      looked: Array.from({ length: tokens }, (_, query) => at(query, state.token)),
    };
  }
  for (const [kind, title] of PANELS) {
    // One scale for both sides, over patches: CLS would outshine them, and is written in words.
    const tops = Object.values(views).map((view) => kind === "plain" ? 1 : Math.max(...view[kind].slice(data.cls)));
    for (const [side, view] of Object.entries(views)) paint(side, kind, title, view, Math.max(...tops, 1e-12));
  }
  const stage = data.stages ? `, stage ${data.stages[state.layer]}` : "";
  $("layer-text").value = `${data.layers[state.layer]}${stage}`;
  $("raw-title").textContent = `Raw: ${image.name}`;
  const column = document.querySelector('[data-side="compressed"]');
  column.hidden = !shown.compressed;
  let said = `Token at ${nameOf(state.token)}.`;
  if (shown.compressed) {
    $("compressed-title").textContent = `Compressed: ${shown.compressed.label}, ${shown.compressed.bpp.toFixed(3)} bpp`;
    $("rate-text").value = `${shown.compressed.bpp.toFixed(3)} bpp`;
    if (state.token >= data.cls) said += ` Similarity of what this layer makes of it, raw to compressed: ${similarity(shown.compressed, state.layer, state.token - data.cls).toFixed(3)}.`;
  }
  $("token-text").textContent = said;
  $("cls").setAttribute("aria-pressed", String(state.token < data.cls));
  curve(shown.compressed);
  for (const name of ["image", "layer", "codec", "rate"]) $(name).value = state[name];
  history.replaceState(null, "", "#" + Object.entries(state).map(([name, value]) => `${name}=${value}`).join("&"));
}

function paint(side, kind, title, view, top) {
  const figure = document.querySelector(`[data-side="${side}"] [data-kind="${kind}"]`);
  const picture = figure.querySelector("img"), canvas = figure.querySelector("canvas");
  if (picture.src !== view.version.src) picture.src = view.version.src;
  const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows);
  const shares = view[kind];
  for (let patch = 0; patch < patches; patch++) {
    const level = shares ? Math.min(1, shares[data.cls + patch] / top) : 0;
    const colour = data.ramp[Math.round(level * (data.ramp.length - 1))];
    const mine = data.cls + patch === state.token;
    pixels.data.set(mine ? [...MARK, shares ? 255 : 150] : [...colour, shares ? 90 + 130 * level : 0], 4 * patch);
  }
  context.putImageData(pixels, 0, 0);
  if (!shares) {
    figure.querySelector("figcaption").textContent = "What the tower is shown. Click a patch.";
    return;
  }
  let best = 0;
  for (let token = 1; token < tokens; token++) if (shares[token] > shares[best]) best = token;
  const atCls = data.cls ? ` CLS: ${percent(shares[0])}.` : "";
  const most = kind === "looks" ? "takes most from" : "gives most to";
  figure.querySelector("figcaption").innerHTML = `<b>${title}.</b> It ${most} ${nameOf(best)} (${percent(shares[best])}).${atCls}`;
  figure.dataset.best = best;
  $("scale-text").textContent = "From none to the most that a patch has in both pictures of a pair. The chosen patch is pink." +
    (data.tokens_per_cell > 1 ? ` A cell stands for ${data.tokens_per_cell} patches.` : "");
}

function curve(version) {
  const svg = $("curve");
  svg.closest("div").hidden = !version || state.token < data.cls;
  if (svg.closest("div").hidden) { svg.innerHTML = ""; return; }
  const values = data.layers.map((_, layer) => similarity(version, layer, state.token - data.cls));
  const low = Math.min(0.5, ...values), wide = Math.max(1, data.layers.length - 1);
  const x = (layer) => 34 + 352 * layer / wide, y = (value) => 8 + 98 * (1 - value) / (1 - low);
  const points = values.map((value, layer) => `${x(layer).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const ticks = data.layers.map((name, layer) => `<text x="${x(layer)}" y="124" text-anchor="middle">${name}</text>`).join("");
  svg.innerHTML = `<path d="M34 8V106H390" fill="none" stroke="var(--rule)"/><text x="28" y="12" text-anchor="end">1</text>` +
    `<text x="28" y="108" text-anchor="end">${low.toFixed(2)}</text>${ticks}` +
    `<polyline points="${points}" fill="none" stroke="var(--accent)" stroke-width="2"/>` +
    `<circle cx="${x(state.layer)}" cy="${y(values[state.layer])}" r="4.5" fill="var(--mark)"/>`;
}

function choose(token) {
  state.token = Math.min(tokens - 1, Math.max(0, token));
  draw();
}

for (const [id, names] of [["image", data.images.map((image) => image.name)], ["codec", data.codecs]])
  $(id).append(...names.map((name, place) => new Option(name, place)));
$("layer").max = data.layers.length - 1;
$("rate").max = Math.max(0, versionsOf(data.images[0]).length - 1);
for (const label of ["codec-label", "rate-label"]) $(label).hidden = data.codecs.length === 0;
$("cls").hidden = data.cls === 0;
for (const name of ["image", "layer", "codec", "rate"])
  $(name).addEventListener("input", () => {
    state[name] = Number($(name).value);
    if (name === "codec") $("rate").max = Math.max(0, versionsOf(data.images[state.image]).length - 1);
    draw();
  });
$("cls").addEventListener("click", () => choose(0));
$("controls").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (!step || state.token < data.cls) return;
  const next = state.token + step;
  if (next < data.cls || next >= tokens) return;
  event.preventDefault();
  choose(next);
});
$("ramp").style.background = `linear-gradient(90deg, ${data.ramp.map((colour) => `rgb(${colour})`).join(", ")})`;
for (const part of location.hash.slice(1).split("&")) {
  const [name, value] = part.split("=");
  const tops = { image: data.images.length - 1, layer: data.layers.length - 1, codec: data.codecs.length - 1, rate: 99, token: tokens - 1 };
  if (name in tops && /^\d+$/.test(value)) state[name] = Math.max(0, Math.min(tops[name], Number(value)));
}
$("rate").max = Math.max(0, versionsOf(data.images[state.image]).length - 1);
draw();
