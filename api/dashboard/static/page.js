// What every page does: form tokens, local times, uploads, image sliders, messages at their fields.
"use strict";

const token = () => document.body.dataset.formToken || "";

document.body.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-Form-Token"] = token();
});

function localTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (isNaN(at) || time.title) continue;
    time.title = time.textContent;
    time.textContent = at.toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
  }
}

function sliders(root) {
  for (const figure of root.querySelectorAll(".series")) {
    const label = figure.querySelector(".slider");
    if (!label || !label.hidden) continue;
    label.hidden = false;
    const names = JSON.parse(figure.dataset.images), steps = JSON.parse(figure.dataset.steps);
    const image = figure.querySelector("img"), slider = label.querySelector("input");
    slider.addEventListener("input", () => {
      const at = Number(slider.value);
      image.src = figure.dataset.base + encodeURIComponent(names[at]);
      image.alt = image.alt.replace(/\d+$/, steps[at]);
      figure.querySelector(".step").textContent = steps[at];
    });
  }
}

// Problems of a spec stand at their fields as well as in the list.
function placeProblems() {
  const form = document.getElementById("spec-form");
  if (!form) return;
  for (const old of form.querySelectorAll(".error")) old.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const item of document.querySelectorAll("[data-pointer]")) {
    let field = null;
    for (let at = item.dataset.pointer; at && !field; at = at.slice(0, at.lastIndexOf("/"))) {
      field = [...form.elements].find((one) => one.name === at || one.name === at + "/name" || one.name === at + "/network");
    }
    if (!field) continue;
    field.setAttribute("aria-invalid", "true");
    const words = document.createElement("p");
    words.className = "error";
    words.textContent = item.lastChild.textContent.trim();
    field.after(words);
  }
}

let chosen = [];
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status === 422) event.detail.shouldSwap = true;
  if (event.target.id === "jobs") {
    chosen = [...event.target.querySelectorAll("input:checked")].map((box) => box.value);
  }
});

document.body.addEventListener("htmx:afterSettle", (event) => {
  for (const value of chosen.splice(0)) {
    const box = document.querySelector(`#jobs input[value="${CSS.escape(value)}"]`);
    if (box) box.checked = true;
  }
  localTimes(document);
  sliders(document);
  for (const log of document.querySelectorAll(".log pre")) log.scrollTop = log.scrollHeight;
  if (event.target.id === "check") {
    document.getElementById("top-problems").replaceChildren();
    placeProblems();
  }
});

document.addEventListener("submit", (event) => {
  const question = event.target.getAttribute("data-confirm");
  if (question && !window.confirm(question)) event.preventDefault();
});

for (const block of document.querySelectorAll("pre.copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.textContent);
    button.textContent = "Copied";
  });
  block.before(button);
}

function sendBytes(file, address, report) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", address);
    request.setRequestHeader("X-Form-Token", token());
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => report(event.loaded, event.total));
    request.addEventListener("load", () => (request.status < 300 ? resolve() : reject(new Refused(request.responseText))));
    request.addEventListener("error", () => reject(new Error("The connection broke.")));
    request.send(file);
  });
}

class Refused extends Error {
  constructor(text) {
    let body = {};
    try { body = JSON.parse(text); } catch { /* a proxy's page */ }
    const more = (body.errors || []).map((one) => `${one.pointer} ${one.message}`).join("; ");
    super([body.detail || "The service refused the file.", more].filter(Boolean).join(" "));
  }
}

const TRIES = 4;
const records = new Map(); // by form; not in form.dataset, which a field named "dataset" hides

async function upload(form) {
  const said = form.querySelector(".progress"), button = form.querySelector("button");
  const file = form.querySelector("input[type=file]").files[0];
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (typeof value === "string") fields.set(name, value);
  if (!fields.get("name")) fields.set("name", file.name.slice(0, 255));
  button.disabled = true;
  try {
    // a record whose bytes did not arrive is used again, so that a second try does not leave two
    if (!records.has(form)) {
      const made = await fetch(form.getAttribute("data-create"), {
        method: "POST", body: fields, headers: { "X-Form-Token": token(), Accept: "application/json" },
      });
      if (!made.ok) throw new Refused(await made.text());
      records.set(form, await made.json());
    }
    for (let attempt = 1; ; attempt++) {
      try {
        await sendBytes(file, records.get(form).content, (done, all) => {
          said.textContent = `Sending: ${Math.round((100 * done) / all)} % of ${(all / 1048576).toFixed(1)} MiB`;
        });
        break;
      } catch (error) {
        if (error instanceof Refused || attempt === TRIES) throw error;
        said.textContent = "The connection broke. Sending again.";
        await new Promise((resolve) => setTimeout(resolve, 1000 * attempt));
      }
    }
    window.location = records.get(form).page;
  } catch (error) {
    said.textContent = error.message;
    button.disabled = false;
  }
}

for (const form of document.querySelectorAll("form.upload")) {
  const drop = form.querySelector(".drop");
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    form.querySelector("input[type=file]").files = event.dataTransfer.files;
  });
  form.addEventListener("submit", (event) => { event.preventDefault(); upload(form); });
}

localTimes(document);
sliders(document);
placeProblems();
