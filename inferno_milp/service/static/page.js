// The page to plan on. It asks the service's own API (/v1) for everything, follows jobs as they go, and puts the parts
// that the service renders (/page) in their places.

const $ = (id) => document.getElementById(id);
// The text's files; what the plan that is shown was asked; its job; what is being done.
const state = { files: {}, shown: null, job: "", stop: null, edited: false };
let token = sessionStorage.getItem("inferno-token") || "";

class Refused extends Error {
  constructor(status, document) {
    super(document.message || `the service answered ${status}`);
    this.status = status;
    this.errors = document.errors || [];
  }
}

async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "the service does not answer" });
  }
  if (response.ok) return response;
  const document_ = await response.json().catch(() => ({}));
  if (response.status === 401) {
    $("token-form").hidden = false;
    $("token").focus();
  }
  throw new Refused(response.status, document_);
}

function tell(text, isBad = false) {
  $("status").textContent = text; // in the bar at the foot of the window, wherever one is on the page
  $("status").className = isBad ? "bad" : "";
}

// The text, its lines and its faults.

function numberLines(marked = new Set()) {
  const count = $("problem").value.split("\n").length;
  $("lines").replaceChildren();
  for (let line = 1; line <= count; line += 1) {
    const part = document.createElement(marked.has(line) ? "b" : "span");
    part.textContent = `${marked.has(line) ? "▸" : ""}${line}\n`;
    $("lines").append(part);
  }
  $("lines").scrollTop = $("problem").scrollTop;
}

function goToLine(line) {
  const lines = $("problem").value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  $("problem").focus();
  $("problem").setSelectionRange(start, start + (lines[line - 1] || "").length);
  const height = parseFloat(getComputedStyle($("problem")).lineHeight);
  $("problem").scrollTop = Math.max(0, (line - 4) * height);
}

function showFaults(message, errors) {
  $("faults").replaceChildren();
  const own = (fault) => fault.line && (!fault.file || !(fault.file in state.files));
  numberLines(new Set(errors.filter(own).map((fault) => fault.line)));
  $("faults").classList.remove("stale");
  if (!message) return;
  const head = document.createElement("p");
  head.className = "bad";
  head.textContent = message;
  const list = document.createElement("ol");
  for (const fault of errors) {
    const item = document.createElement("li");
    const text = `${fault.path ? `${fault.path}: ` : ""}${fault.problem}${fault.remedy ? `; ${fault.remedy}` : ""}`;
    if (own(fault)) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `line ${fault.line}: ${text}`;
      button.addEventListener("click", () => goToLine(fault.line));
      item.append(button);
    } else {
      item.className = "bad";
      item.textContent = fault.file && fault.file in state.files ? fault.text : text;
    }
    list.append(item);
  }
  $("faults").append(head, list);
}

function showProblem(text, files = {}) {
  $("problem").value = text;
  $("problem").scrollTop = 0;
  state.files = files;
  state.edited = false;
  markStale();
  $("also").textContent = Object.keys(files).length ? `with ${Object.keys(files).join(", ")}` : "";
  showFaults("", []);
  tell("");
}

// The plan that is shown may be of another text than the one above it.
function markStale() {
  const isStale = state.shown !== null
    && (state.shown.problem !== $("problem").value || JSON.stringify(state.shown.files) !== JSON.stringify(state.files));
  $("result").classList.toggle("stale-plan", isStale);
  let notice = $("stale");
  if (isStale && !notice) {
    notice = document.createElement("p");
    notice.id = "stale";
    notice.className = "notice";
    notice.textContent = "This plan is of an earlier text. Press Plan for one of the text above.";
    $("result").prepend(notice);
  } else if (!isStale) notice?.remove();
}

function mayReplace() {
  return !state.edited || confirm("Replace the text, with what you changed in it?");
}

// llm-inferno's system may come as six files.
const PARTS = {
  "accelerator-data.json": "acceleratorData", "model-data.json": "modelData",
  "serviceclass-data.json": "serviceClassData", "server-data.json": "serverData",
  "optimizer-data.json": "optimizerData", "capacity-data.json": "capacityData",
};

async function open(files) {
  const texts = {};
  for (const file of files) texts[file.name] = await file.text();
  const names = Object.keys(texts);
  if (!names.length) return;
  if (names.length > 1 && names.every((name) => name in PARTS)) {
    try {
      const system = Object.fromEntries(names.map((name) => [PARTS[name], JSON.parse(texts[name])]));
      showProblem(JSON.stringify({ system }, null, 2));
    } catch (error) {
      showFaults(`these files are not JSON: ${error.message}`, []);
    }
    return;
  }
  const main = names.find((name) => /^include:/m.test(texts[name])) || names.find((name) => /^servers:/m.test(texts[name])) || names[0];
  const { [main]: text, ...others } = texts;
  showProblem(text, others);
}

// Work.

function written() {
  return { problem: $("problem").value, files: state.files };
}

function busy(isBusy) {
  document.querySelectorAll("#plan, #check, #result button").forEach((button) => { button.disabled = isBusy; });
  $("cancel").hidden = !isBusy;
  $("result").setAttribute("aria-busy", String(isBusy));
}

const WORDS = {
  candidates: "analysing what each server could run on", build: "building the program", solve: "solving",
  check: "checking the plan", explain: "explaining", price: "planning anew for each price", simulate: "simulating",
};

async function follow(job, signal) {
  const response = await ask(`/v1/jobs/${job}/events`, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) { // the service stopped, or the line was cut: what does the job say now?
      await new Promise((resolve) => { setTimeout(resolve, 1000); });
      const now = await (await ask(`/v1/jobs/${job}`, { signal })).json();
      return ["queued", "running"].includes(now.status) ? follow(job, signal) : now;
    }
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const event = /^event: (.*)$/m.exec(part)?.[1];
      const data = JSON.parse(/^data: (.*)$/m.exec(part)?.[1] || "{}");
      if (event === "end") return data;
      if (event === "status") tell(data.status === "queued" ? "waiting for a worker…" : "working…");
      if (event === "progress") {
        const count = data.of ? ` (${data.done} of ${data.of})` : "";
        tell(`${WORDS[data.stage] || data.stage}${count}…`);
      }
    }
  }
}

// Does something as a job; returns its id if it is done.
async function work(body) {
  if (state.stop) return null;
  const before = document.activeElement;
  const stop = new AbortController();
  state.stop = stop;
  busy(true);
  let job;
  try {
    tell("checking…");
    await ask("/v1/validate", { method: "POST", body, signal: stop.signal });
    showFaults("", []);
    job = (await (await ask("/v1/jobs", { method: "POST", body, signal: stop.signal })).json()).id;
    const end = await follow(job, stop.signal);
    if (end.status === "done") {
      tell("");
      return job;
    }
    if (end.status === "failed") {
      await ask(`/v1/jobs/${job}/result`, { signal: stop.signal });
    } else tell(`the job was ${end.status}`, true);
  } catch (error) {
    if (error.name === "AbortError") {
      if (job) await ask(`/v1/jobs/${job}/cancel`, { method: "POST" }).catch(() => null);
      tell("cancelled");
    } else fail(error, state.shown !== null && body.problem === state.shown.problem);
  } finally {
    state.stop = null;
    busy(false);
    if (document.activeElement === document.body) before?.focus();
  }
  return null;
}

// `ofShown`: it was asked of the plan that is shown, so that a fault may be of one of its figures.
function fail(error, ofShown = false) {
  if (error.status === 401) {
    tell(token ? "this token is not accepted" : "a token is needed", true);
    return;
  }
  if (!error.errors?.length) {
    tell(error.message || String(error), true);
    return;
  }
  tell("");
  showFaults(error.message, error.errors);
  const field = ofShown ? error.errors.map((fault) => fieldOf(fault.path)).find(Boolean) : null;
  if (field) {
    tell(error.errors[0].problem, true);
    point(field);
  } else $("faults").focus();
}

// A figure of the plan that a fault is of: its path has names where the fault's has them too.
function fieldOf(path) {
  return fields().find((input) => path && input.dataset.path === path);
}

function point(field) {
  field.setAttribute("aria-invalid", "true");
  field.closest("details")?.setAttribute("open", "");
  field.focus();
}

async function put(path, place, options) {
  const response = await ask(path, options);
  place.innerHTML = await response.text(); // rendered by the service, which escapes all names
}

async function plan(wanted = { ...written(), settings: {} }, before = "") {
  const limit = $("limit");
  if (!limit.reportValidity()) return;
  const job = await work({ kind: "optimize", ...wanted, ...(limit.value ? { time_limit_s: Number(limit.value) } : {}) });
  if (!job) return;
  try {
    await showPlan(job, wanted, before);
    history.pushState({ job }, "", `/p/${job}${before ? `?before=${before}` : ""}`);
  } catch (error) {
    fail(error);
  }
}

async function showPlan(job, wanted, before = "") {
  await put(`/page/plans/${job}${before ? `?before=${before}` : ""}`, $("result"));
  state.job = job;
  state.shown = wanted;
  markStale();
  $("plan-heading").focus();
  document.title = `${$("plan-heading").textContent}: ${$("cost").textContent} ${$("cost").dataset.unit}`;
  listAccelerators();
}

async function load(job, before = "") {
  try {
    const request = await (await ask(`/v1/jobs/${job}/request`)).json();
    const { problem } = request;
    const text = typeof problem === "string" ? problem : JSON.stringify(problem, null, 2);
    showProblem(text, request.files || {});
    await showPlan(job, { ...written(), settings: request.settings || {} }, before);
  } catch (error) {
    if (error.status === 404) tell("this plan is not kept any more, or the link is wrong", true);
    else fail(error);
  }
}

// Other figures.

function fields() {
  return [...document.querySelectorAll("input[data-path]")];
}

function changedFields() {
  return fields().filter((input) => input.value !== input.dataset.was);
}

function markChanges() {
  const changed = new Set(changedFields());
  fields().forEach((input) => input.classList.toggle("changed", changed.has(input)));
  const all = Number($("all-rates").value) !== 1;
  const count = changed.size + (all ? 1 : 0);
  $("changed").textContent = count ? `${count} figure${count > 1 ? "s" : ""} changed.` : "Nothing is changed yet.";
}

function planAgain() {
  const wrong = [$("all-rates"), ...fields()].find((input) => !input.checkValidity());
  if (wrong) {
    point(wrong);
    wrong.reportValidity();
    return null;
  }
  const { settings, ...others } = state.shown;
  const given = Array.isArray(settings) ? [...settings] : { ...settings };
  const set = (path, value) => {
    if (Array.isArray(given)) given.push(`${path}=${value}`);
    else given[path] = value;
  };
  const factor = Number($("all-rates").value);
  const rates = fields().filter((input) => /\.load\.rate_per_/.test(input.dataset.path));
  for (const input of changedFields()) set(input.dataset.path, Number(input.value));
  if (factor !== 1) for (const input of rates) set(input.dataset.path, Number(input.value) * factor);
  return plan({ ...others, settings: given }, state.job);
}

async function adopt() {
  const text = await (await ask(`/v1/jobs/${state.job}/problem.yaml`)).text();
  $("problem").focus();
  $("problem").select();
  // As if it were typed, so that Ctrl+Z takes it back.
  if (!document.execCommand("insertText", false, text)) $("problem").value = text;
  state.files = {};
  state.edited = false;
  state.shown = { ...written(), settings: {} };
  $("also").textContent = "";
  $("differs")?.remove();
  $("problem").setSelectionRange(0, 0);
  $("problem").scrollTop = 0;
  numberLines();
  markStale();
  tell("the text now has the figures of this plan; Ctrl+Z in it takes that back");
}

async function save(path, name) {
  const blob = await (await ask(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function share() {
  const link = `${location.origin}/p/${state.job}`;
  try {
    await navigator.clipboard.writeText(link);
    tell("the link is in the clipboard");
  } catch {
    tell(link);
  }
}

// Curves.

function listAccelerators() {
  const chosen = $("curve-server").selectedOptions[0];
  const names = chosen ? JSON.parse(chosen.dataset.accelerators) : [];
  $("curve-accelerator").replaceChildren(...names.map((name) => new Option(name, name)));
}

async function draw() {
  tell("drawing…");
  const body = { ...state.shown, server: $("curve-server").value, accelerator: $("curve-accelerator").value };
  const rate = JSON.parse($("curve-server").selectedOptions[0].dataset.rates)[body.accelerator];
  await put(`/page/curves${rate ? `?rate=${rate}` : ""}`, $("drawn"), { method: "POST", body });
  tell("");
}

async function show(kind, path, place) {
  const job = await work({ kind, ...state.shown });
  if (!job) return;
  await put(`${path}/${job}`, place);
  place.focus();
}

// What is done when.

const guarded = (action) => async (event) => {
  try {
    await action(event);
  } catch (error) {
    fail(error);
  }
};

$("problem").addEventListener("input", () => {
  const marked = [...document.querySelectorAll("#lines b")].map((line) => parseInt(line.textContent.slice(1), 10));
  numberLines(new Set(marked));
  state.edited = true;
  $("faults").classList.add("stale");
  if (!state.stop) tell("");
  markStale();
});
$("problem").addEventListener("scroll", () => { $("lines").scrollTop = $("problem").scrollTop; });
$("problem").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !state.stop) plan();
});
$("problem").addEventListener("dragover", (event) => event.preventDefault());
$("problem").addEventListener("drop", guarded(async (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  if (mayReplace()) await open(event.dataTransfer.files);
}));
$("example").addEventListener("change", guarded(async (event) => {
  const name = event.target.value;
  event.target.value = "";
  if (name && mayReplace()) showProblem(await (await ask(`/page/examples/${encodeURIComponent(name)}`)).text());
}));
$("upload").addEventListener("change", guarded(async (event) => {
  if (mayReplace()) await open(event.target.files);
  event.target.value = "";
}));
$("plan").addEventListener("click", () => plan());
$("check").addEventListener("click", guarded(async () => {
  const found = await (await ask("/v1/validate", { method: "POST", body: written() })).json();
  showFaults("", []);
  tell(`no fault: ${found.servers} servers of ${found.models} models in ${found.service_classes} service classes, ${found.accelerators} accelerators`);
}));
$("cancel").addEventListener("click", () => state.stop?.abort());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("inferno-token", token);
  $("token-form").hidden = true;
  tell("");
  if (document.body.dataset.job && !state.job) loadFromPath();
  else $("problem").focus();
});
$("result").addEventListener("click", guarded(async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.save) await save(button.dataset.save, button.dataset.name);
  else if (button.id === "share") await share();
  else if (button.id === "adopt") await adopt();
  else if (button.id === "drop") await plan({ ...state.shown, settings: {} }, state.job);
  else if (button.id === "simulate") await show("simulate", "/page/simulations", $("simulate-here"));
  else if (button.id === "why") await show("explain", "/page/why", $("why-here"));
  else if (button.id === "prices") await show("prices", "/page/prices", $("prices-here"));
}));
$("result").addEventListener("submit", guarded(async (event) => {
  event.preventDefault();
  if (event.target.id === "curves") await draw();
  if (event.target.id === "controls") await planAgain();
}));
$("result").addEventListener("reset", () => setTimeout(markChanges));
$("result").addEventListener("input", (event) => {
  if (event.target.matches("input[data-path], #all-rates")) {
    event.target.removeAttribute("aria-invalid");
    markChanges();
  }
  if (event.target.id === "filter") {
    const part = event.target.value.toLowerCase();
    let name = "";
    for (const row of document.querySelectorAll("#allocations tbody tr")) {
      name = row.cells[0].textContent.trim() || name;
      row.hidden = !`${name} ${row.cells[1].textContent}`.toLowerCase().includes(part);
    }
  }
});
$("result").addEventListener("change", (event) => {
  if (event.target.id === "curve-server") listAccelerators();
});
function jobInPath() {
  return /\/p\/([\w-]+)$/.exec(location.pathname)?.[1] || "";
}

function loadFromPath() {
  return load(jobInPath(), new URLSearchParams(location.search).get("before") || "");
}

addEventListener("popstate", () => {
  const job = jobInPath();
  if (job === state.job) return; // a jump within the page
  if (job) loadFromPath();
  else {
    $("result").replaceChildren();
    state.job = "";
    state.shown = null;
  }
});

numberLines();
if (document.body.dataset.job) loadFromPath();
