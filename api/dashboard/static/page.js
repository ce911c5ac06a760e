// What every page does: form tokens, local times, image sliders, messages at their fields.
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
      const names = [at, at + "/name", at + "/network", at + "[]"];
      field = [...form.elements].find((one) => names.includes(one.name));
    }
    if (!field) continue;
    field.setAttribute("aria-invalid", "true");
    const words = document.createElement("p");
    words.className = "error";
    words.append(...item.querySelector("span").cloneNode(true).childNodes);
    (field.type === "checkbox" ? field.closest("fieldset") : field).after(words);
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

localTimes(document);
sliders(document);
placeProblems();
