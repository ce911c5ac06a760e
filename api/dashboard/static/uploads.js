// Sending files: a large one in ranges, which goes on after a broken connection and, if the same file is chosen again, after a reload.
"use strict";

const PAUSES = [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]; // seconds between two tries; progress begins them anew
const SILENT_SECONDS = 60;
const PASSING = new Set([408, 425, 429, 500, 502, 503, 504]);
const SIGNED_OUT = JSON.stringify({ detail: "Your session has ended. Sign in, and choose the same file again." });
const KEPT = "distillery-uploads", MOST_KEPT = 20;

class Broken extends Error {
  constructor(status, seconds) {
    super(status ? `The service cannot answer now (HTTP ${status}).` : "The connection broke.");
    this.seconds = seconds; // from Retry-After, or 0
  }
}

class Refused extends Error {
  constructor(status, text) {
    let body = {};
    try { body = JSON.parse(text); } catch { /* a proxy's page */ }
    const more = (body.errors || []).map((one) => `${one.pointer} ${one.message}`).join("; ");
    super([body.detail || `The service refused the file (HTTP ${status}).`, more].filter(Boolean).join(" "));
    this.status = status;
  }
}

// Uploads that have not ended, by kind and file: id, page, addresses, and the fields of the form. Kept for other pages of this browser.
const kept = {
  memory: {},
  all() {
    try { return JSON.parse(localStorage.getItem(KEPT)) || {}; } catch { return this.memory; }
  },
  write(all) {
    const newest = Object.entries(all).sort(([, one], [, other]) => other.at - one.at).slice(0, MOST_KEPT);
    this.memory = Object.fromEntries(newest);
    try { localStorage.setItem(KEPT, JSON.stringify(this.memory)); } catch { /* storage is off: this page alone knows */ }
  },
  put(name, record) { this.write({ ...this.all(), [name]: { ...record, at: Date.now() } }); },
  drop(name) {
    const all = this.all();
    delete all[name];
    this.write(all);
  },
};

const nameOf = (form, file) => JSON.stringify([form.getAttribute("data-create"), file.name, file.size, file.lastModified]);
const fileOf = (form) => form.querySelector("input[type=file]").files[0];

function fieldsOf(form) {
  return Object.fromEntries([...new FormData(form)].filter(([, value]) => typeof value === "string"));
}

// One request. Resolves with the JSON of the answer; rejects with Broken if it may be tried again, else with Refused.
function ask(method, address, { body, headers = {}, report } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let timer = 0;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => request.abort(), 1000 * SILENT_SECONDS);
    };
    request.open(method, address);
    for (const [name, value] of Object.entries({ Accept: "application/json", "X-Form-Token": token(), ...headers })) {
      request.setRequestHeader(name, value);
    }
    request.upload.addEventListener("progress", (event) => {
      heard();
      if (report) report(event.loaded);
    });
    request.addEventListener("loadend", () => {
      clearTimeout(timer);
      if (!request.status || PASSING.has(request.status)) {
        return reject(new Broken(request.status, Number(request.getResponseHeader("Retry-After")) || 0));
      }
      if (request.status >= 300) return reject(new Refused(request.status, request.responseText));
      try { resolve(JSON.parse(request.responseText)); } catch { reject(new Refused(request.status, SIGNED_OUT)); }
    });
    heard();
    request.send(body);
  });
}

// The record of a file: the one whose bytes have not all arrived, if the form is the same, or a new one.
async function recordOf(form, file, name) {
  const fields = fieldsOf(form), known = kept.all()[name];
  if (known && JSON.stringify(known.fields) === JSON.stringify(fields)) {
    try {
      return { ...known, ...(await ask("GET", known.received)) };
    } catch (error) {
      if (error.status !== 404) throw error; // deleted, or of another key
    }
  }
  const body = new URLSearchParams({ ...fields, name: fields.name || file.name.slice(0, 255) });
  const made = { ...(await ask("POST", form.getAttribute("data-create"), { body })), fields };
  kept.put(name, made);
  return made;
}

// Send the next range, or the whole of a small file; resolves with what the record is like then.
function sendNext(file, record, most, report) {
  const first = record.bytes, end = Math.min(first + most, file.size);
  const headers = { "Content-Type": "application/octet-stream" };
  if (file.size > most) headers["Content-Range"] = `bytes ${first}-${end - 1}/${file.size}`;
  return ask("PUT", record.content, { body: file.slice(first, end), headers, report: (sent) => report(first + sent) });
}

function pause(seconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, 1000 * seconds);
    window.addEventListener("online", resolve, { once: true });
  });
}

// Send what is missing of a file until the service has all of it.
async function sendAll(form, file, name, say) {
  const most = Number(form.getAttribute("data-range"));
  let record = await recordOf(form, file, name), tries = 0;
  while (record.status === "waiting") {
    try {
      if (tries) record = { ...record, ...(await ask("GET", record.received)) };
      if (record.status !== "waiting") break;
      record = { ...record, ...(await sendNext(file, record, most, say)) };
      tries = 0;
    } catch (error) {
      if (error.status === 409) { // an earlier try of this range has arrived after all
        const newer = await ask("GET", record.received);
        if (newer.bytes === record.bytes && newer.status === record.status) throw error;
        record = { ...record, ...newer };
        continue;
      }
      if (!(error instanceof Broken) || tries === PAUSES.length) throw error;
      const seconds = Math.max(PAUSES[tries], error.seconds);
      tries += 1;
      say(null, `${error.message} Going on in ${seconds} s.`);
      await pause(seconds);
    }
  }
  return record;
}

async function upload(form) {
  const said = form.querySelector(".said"), sent = form.querySelector(".sent"), button = form.querySelector("button");
  const file = fileOf(form), name = nameOf(form, file);
  const say = (bytes, words = `Sending ${(file.size / 1048576).toFixed(1)} MiB.`) => {
    sent.hidden = false;
    if (bytes !== null) {
      const part = file.size ? bytes / file.size : 1;
      sent.querySelector("progress").value = part;
      sent.querySelector("span").textContent = `${Math.floor(100 * part)} %`;
    }
    if (said.textContent !== words) said.textContent = words; // read aloud when it changes
  };
  button.disabled = true;
  try {
    const record = await sendAll(form, file, name, say);
    kept.drop(name);
    window.location = record.page;
  } catch (error) {
    const more = error instanceof Broken ? " Press Send to go on from there." : "";
    said.textContent = error.message + more;
    button.disabled = false;
  }
}

// A file that was chosen before: its fields are filled in again.
function recall(form) {
  const file = fileOf(form), known = file && kept.all()[nameOf(form, file)];
  if (!known) return;
  for (const [name, value] of Object.entries(known.fields)) {
    const field = form.elements.namedItem(name);
    if (field) field.value = value;
  }
  form.querySelector(".said").textContent = "This file was not sent to its end. Press Send to go on from there.";
}

for (const form of document.querySelectorAll("form.upload")) {
  const drop = form.querySelector(".drop"), input = form.querySelector("input[type=file]");
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    input.files = event.dataTransfer.files;
    recall(form);
  });
  input.addEventListener("change", () => recall(form));
  form.addEventListener("submit", (event) => { event.preventDefault(); upload(form); });
}
