"use strict";
// Choices of session contrast, strategy and kind of map; without this script every picture is on the page, in details.
function choose(box, title, names, chosen, whenChosen) {
  const fieldset = document.createElement("fieldset");
  const legend = document.createElement("legend");
  legend.textContent = title;
  fieldset.append(legend);
  for (const name of names) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = "radio";
    input.name = box.id + title;
    input.checked = name === chosen;
    input.addEventListener("change", () => whenChosen(name));
    label.append(input, name);
    fieldset.append(label);
  }
  box.append(fieldset);
}

function unique(values) {
  return [...new Set(values)];
}

function prepareSection(section, number) {
  const box = section.querySelector(".choices");
  const questions = [...section.querySelectorAll(".question")];
  if (!box || !questions.length) return;
  box.id = "choices-" + number;
  for (const question of questions) {
    const more = question.querySelector(".more");
    if (more) more.replaceWith(...more.querySelectorAll(".map"));
    question.querySelectorAll(".map").forEach((map, position) => { map.hidden = position > 0; });
  }
  const state = { question: questions[0], strategy: null, kind: "z" };
  function show() {
    box.hidden = false;
    box.replaceChildren();
    for (const question of questions) question.hidden = question !== state.question;
    const maps = [...state.question.querySelectorAll(".map")];
    const titled = (map) => map.dataset.strategy + (map.dataset.valid === "not valid" ? " (not valid)" : "");
    const strategies = unique(maps.map(titled));
    if (!strategies.includes(state.strategy)) state.strategy = strategies[0];
    const own = maps.filter((map) => titled(map) === state.strategy);
    const kinds = unique(own.map((map) => map.dataset.kind));
    const kind = kinds.includes(state.kind) ? state.kind : kinds[0];
    for (const map of maps) map.hidden = !(own.includes(map) && map.dataset.kind === kind);
    const set = (key, value) => {
      state[key] = value;
      const position = [...box.querySelectorAll("input")].findIndex((input) => input === document.activeElement);
      show();
      const again = box.querySelectorAll("input")[position];
      const group = again && [...box.querySelectorAll("input:checked")].find((input) => input.name === again.name);
      (group || again)?.focus();
    };
    if (questions.length > 1) {
      choose(box, "Session contrast", questions.map((question) => question.dataset.title), state.question.dataset.title,
        (title) => set("question", questions.find((question) => question.dataset.title === title)));
    }
    if (strategies.length > 1) choose(box, "Strategy", strategies, state.strategy, (name) => set("strategy", name));
    if (kinds.length > 1) choose(box, "Show", kinds, kind, (name) => set("kind", name));
    box.hidden = !box.children.length;
  }
  show();
  section.reveal = (question) => { state.question = question; show(); };
}

function prepareCopy(button) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    const paragraph = button.closest(".answer").querySelector("p");
    await navigator.clipboard.writeText(paragraph.textContent.replace(/\s+/g, " ").trim());
    button.textContent = "Copied";
  });
}

// What a link points at may be in a closed part
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const question = target.closest(".question");
  if (question) question.closest("section").reveal?.(question);
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  target.scrollIntoView();
}

// What is wider than its place is scrolled by keys too; the rest is no stop of the Tab key
const widths = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const isWide = target.scrollWidth > target.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "group"], ["aria-label", "Scrolls sideways"]]) {
      if (isWide) target.setAttribute(name, value);
      else target.removeAttribute(name);
    }
  }
});

document.querySelectorAll("main > section").forEach(prepareSection);
document.querySelectorAll(".scroll").forEach((part) => widths.observe(part));
document.querySelectorAll("button.copy").forEach(prepareCopy);
addEventListener("hashchange", reveal);
addEventListener("click", (event) => {
  if (event.target.closest?.("a")?.hash === location.hash) reveal(); // the same link again: the hash does not change
});
let openedForPaper = [];
addEventListener("beforeprint", () => {
  openedForPaper = [...document.querySelectorAll("details.paper:not([open]), details.caution:not([open])")];
  for (const part of openedForPaper) part.open = true;
});
addEventListener("afterprint", () => { for (const part of openedForPaper) part.open = false; });
reveal();
