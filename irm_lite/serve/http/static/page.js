// One column a steering, side by side; sliders act on the answer that is being written. Plain JavaScript, no library, no build.
"use strict";

const at = (id) => document.getElementById(id);
const MOST = 5; // columns: a browser opens six connections to a server, and the sliders need one
const columns = [];
let model = "";
let sources = [];
const seen = new Map(); // by an IRM's name, what it added in the newest answer: {outputs, of}
let running = null;

class Column {
  constructor(name, scale) {
    this.place = at("column").content.firstElementChild.cloneNode(true);
    this.find = (what) => this.place.querySelector(what);
    this.id = null; // the answer's, while it is being written
    this.pending = null;
    this.norms = [];
    for (const each of ["", ...sources.map((source) => source.name)]) this.find(".name").append(new Option(each || "nothing", each));
    this.find(".name").value = sources.some((source) => source.name === name) ? name : "";
    this.find(".scale").value = scale;
    this.find(".name").addEventListener("change", () => this.changed());
    this.find(".scale").addEventListener("input", () => this.changed());
    this.find(".remove").addEventListener("click", () => remove(this));
    at("columns").append(this.place);
    this.show();
  }

  get name() { return this.find(".name").value; }
  get scale() { return Number(this.find(".scale").value); }
  get kind() { return (sources.find((source) => source.name === this.name) || {}).kind; }
  get steering() { return this.name ? [{ name: this.name, scale: this.scale }] : []; }

  show() {
    const number = columns.indexOf(this) + 1 || columns.length + 1;
    const title = `Column ${number}: ${this.name || "unsteered"}`;
    this.find("h2").textContent = title;
    this.find(".answer").setAttribute("aria-label", `Answer of ${title}`);
    this.find(".number").textContent = this.scale.toFixed(2);
    this.find(".scale-row").hidden = !this.name;
  }

  changed() {
    this.show();
    keep();
    if (this.id !== null && this.pending === null) this.send();
  }

  // One request at a time: of a slider's many places the latest is sent.
  async send() {
    const sent = JSON.stringify(this.steering);
    this.pending = sent;
    try {
      const response = await post(`/v1/answers/${this.id}/steering`, { steering: this.steering });
      if (!response.ok && response.status !== 404) this.say((await response.json()).error.message);
    } catch (error) {
      return this.say(error.message);
    } finally {
      this.pending = null;
    }
    if (this.id !== null && JSON.stringify(this.steering) !== sent) await this.send();
  }

  say(text) { this.find(".state").textContent = text; }

  async ask(body, signal) {
    this.find(".answer").textContent = "";
    this.find(".strip").replaceChildren();
    this.norms = [];
    this.sent = JSON.stringify(this.steering);
    this.asked = this.name; // an IRM's answer stays its own, whatever is chosen meanwhile
    this.say("waiting …");
    this.place.setAttribute("aria-busy", "true");
    try {
      const response = await post("/v1/chat/completions", { ...body, steering: this.steering, outputs: this.kind === "irm" }, signal);
      if (!response.ok) {
        const problem = await response.json();
        if (problem.error.code === "invalid_api_key") at("key-row").hidden = false;
        throw new Error(problem.error.message);
      }
      await this.read(response.body.getReader());
    } catch (error) {
      this.say(error.name === "AbortError" ? "stopped" : error.message);
    } finally {
      this.id = null;
      this.place.removeAttribute("aria-busy");
    }
  }

  async read(reader) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data !== "[DONE]") this.take(JSON.parse(data));
      }
    }
  }

  take(chunk) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (this.id === null) {
      this.id = chunk.id;
      if (this.pending === null && JSON.stringify(this.steering) !== this.sent) this.send(); // it was moved since
    }
    const choice = chunk.choices[0];
    if (!choice) return;
    if (choice.delta.content) this.find(".answer").append(choice.delta.content);
    for (const token of choice.tokens || []) if (token.norm !== null) this.norms.push(token.norm);
    this.drawStrip();
    if (choice.outputs) {
      const of = `the first ${this.norms.length} tokens of column ${columns.indexOf(this) + 1}'s answer`;
      seen.set(this.asked, { outputs: choice.outputs, of });
      if (at("shown").value === this.asked) drawMap();
    }
    if (choice.finish_reason) this.say(choice.finish_reason === "stop" ? "ended by itself" : "cut at the limit");
    else this.say("writing …");
  }

  drawStrip() {
    const strip = this.find(".strip");
    strip.hidden = this.norms.length === 0;
    if (strip.hidden) return;
    const most = Math.max(...this.norms, 1e-9);
    strip.replaceChildren(...this.norms.map((norm) => {
      const bar = document.createElement("i");
      bar.style.height = `${Math.max(2, (100 * norm) / most)}%`;
      return bar;
    }));
    const last = this.norms.at(-1);
    const text = `Strength of what steers, token by token: ${Math.min(...this.norms).toFixed(1)} to ${most.toFixed(1)}, now ${last.toFixed(1)}`;
    strip.setAttribute("aria-label", text);
    strip.title = text;
  }
}

function headers() {
  const key = at("key").value;
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

function post(path, body, signal) {
  return fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
}

async function get(path) {
  const response = await fetch(path, { headers: headers() });
  const document_ = await response.json();
  if (!response.ok) {
    if (document_.error.code === "invalid_api_key") at("key-row").hidden = false;
    throw new Error(document_.error.message);
  }
  return document_;
}

function add(name, scale) {
  columns.push(new Column(name, scale));
  columns.forEach((each) => each.show());
  at("add").disabled = columns.length >= MOST;
}

function remove(column) {
  if (columns.length === 1) return;
  columns.splice(columns.indexOf(column), 1);
  column.place.remove();
  columns.forEach((each) => each.show());
  at("add").disabled = false;
  keep();
}

async function ask(event) {
  event.preventDefault();
  if (!model && !(await load())) return;
  running = new AbortController();
  at("ask").disabled = true;
  at("stop").disabled = false;
  at("status").textContent = "The answers are being written.";
  keep();
  const body = {
    model,
    messages: [{ role: "user", content: at("prompt").value }],
    seed: Number(at("seed").value),
    temperature: Number(at("temperature").value),
    max_tokens: Number(at("tokens").value),
    stream: true,
    norms: true,
  };
  await Promise.all(columns.map((each) => each.ask(body, running.signal)));
  at("ask").disabled = false;
  at("stop").disabled = true;
  at("status").textContent = "The answers are there.";
}

// The setting stands behind the # of the address: it goes to no server, and a copied link brings it back.
function keep() {
  const setting = new URLSearchParams();
  for (const id of ["prompt", "seed", "temperature", "tokens"]) setting.set(id, at(id).value);
  for (const each of columns) setting.append("column", `${each.name}@${each.scale}`);
  history.replaceState(null, "", `#${setting}`);
}

function restore() {
  const setting = new URLSearchParams(location.hash.slice(1));
  for (const id of ["prompt", "seed", "temperature", "tokens"]) if (setting.has(id)) at(id).value = setting.get(id);
  const kept = setting.getAll("column").slice(0, MOST).map((each) => each.split("@"));
  return kept.length ? kept : [["", 1], ...sources.slice(0, 1).map((source) => [source.name, 1])];
}

// A vector is the same for every text. What an IRM adds depends on it, so the newest answer's mean stands for it.
async function drawMap() {
  at("what").hidden = sources.length === 0;
  if (at("what").hidden) return;
  const name = at("shown").value;
  const { kind } = sources.find((source) => source.name === name);
  let picture = null;
  let text = `${name} is an adapter and has no picture: it changes weights, and what that adds depends on the text.`;
  if (kind === "vector") {
    try {
      picture = await get(`/v1/steering/${name}`);
    } catch (error) {
      text = error.message;
    }
    if (at("shown").value !== name) return; // another was chosen meanwhile
  } else if (kind === "irm" && seen.has(name)) picture = seen.get(name).outputs;
  else if (kind === "irm") text = `What ${name} adds depends on the text: ask in a column that it steers, and its mean over the answer is drawn here.`;
  at("map-place").hidden = picture === null;
  at("map-text").textContent = picture === null ? text : drawRows(picture, name, kind === "irm" ? `, the mean over ${seen.get(name).of}` : "");
}

function drawRows({ layers, rows }, name, what) {
  const canvas = at("map");
  const most = Math.max(...rows.flat().map(Math.abs), 1e-9);
  canvas.width = rows[0].length;
  canvas.height = rows.length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, number) => {
    const colour = value > 0 ? [217, 95, 2] : [31, 119, 200];
    pixels.data.set([...colour, Math.round(255 * Math.sqrt(Math.abs(value) / most))], 4 * number);
  });
  context.putImageData(pixels, 0, 0);
  canvas.style.height = `${Math.max(60, 8 * rows.length)}px`;
  const strongest = rows.map((row) => Math.max(...row.map(Math.abs)));
  const text = `${name}: layers ${layers}${what}; the strongest value ${most.toFixed(3)}, in row ${strongest.indexOf(most) + 1} of ${rows.length}.`;
  canvas.setAttribute("aria-label", `Heatmap of ${text}`);
  return text;
}

async function load() {
  try {
    model = (await get("/v1/models")).data[0].id;
    sources = (await get("/v1/steering")).available;
  } catch (error) {
    at("about").textContent = error.message;
    return false;
  }
  at("about").textContent = `${model}, steered by ${sources.map((source) => source.name).join(", ") || "nothing: none is loaded"}.`;
  at("shown").replaceChildren(...sources.map((source) => new Option(source.name)));
  columns.splice(0).forEach((each) => each.place.remove());
  for (const [name, scale] of restore()) add(name, scale);
  await drawMap();
  return true;
}

at("question").addEventListener("submit", ask);
at("stop").addEventListener("click", () => running && running.abort());
at("add").addEventListener("click", () => { add(sources.length ? sources[0].name : "", 1); keep(); });
at("shown").addEventListener("change", drawMap);
at("key").addEventListener("change", load);
at("link").addEventListener("click", async () => {
  keep();
  try {
    await navigator.clipboard.writeText(location.href);
    at("status").textContent = "The link is copied.";
  } catch {
    at("status").textContent = "The address of this page is the link.";
  }
});
load();
