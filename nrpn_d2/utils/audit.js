"use strict";
// The sheet of tools/audit_labels.py: what is decided of each candidate is kept by the browser, and
// exported as a file.
const sheet = document.querySelector("[data-dataset]");
const cards = [...document.querySelectorAll(".candidate")];
const said = document.querySelector("output");
const storage = `audit ${location.pathname} ${sheet.dataset.dataset} ${sheet.dataset.digest}`;

const chosen = (card) => card.querySelector("input:checked").value;
const classOf = (card) => card.querySelector("select").value;
const lacksClass = (card) => chosen(card) === "object" && !classOf(card);

function choose(card, decision) {
  [...card.querySelectorAll("input")].find((input) => input.value === decision).checked = true;
}

function show(card) {
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "center" });
}

function update() {
  const count = (decision) => cards.filter((card) => chosen(card) === decision).length;
  for (const card of cards) card.dataset.decision = chosen(card);
  said.textContent = `${cards.length - count("")} of ${cards.length} decided: ` +
    ["object", "background", "ignore"].map((name) => `${name} ${count(name)}`).join(", ");
}

function save() {
  update();
  try {
    const states = cards.map((card) => [chosen(card), classOf(card)]);
    localStorage.setItem(storage, JSON.stringify(states));
  } catch {
    said.textContent += "; this browser does not keep them: export before you leave";
  }
}

function restore() {
  try {
    const states = JSON.parse(localStorage.getItem(storage)) ?? [];
    states.forEach(([decision, name], number) => {
      choose(cards[number], decision);
      cards[number].querySelector("select").value = name;
    });
  } catch { /* nothing is kept, or not by this page */ }
}

// A candidate stays text: JSON.parse would round the number of an image above 2 ** 53
function decisions() {
  return cards.filter(chosen).map((card) => {
    const entry = { decision: chosen(card) };
    if (entry.decision !== "background" && classOf(card)) entry.class = classOf(card);
    return `${card.dataset.candidate.slice(0, -1)}, ${JSON.stringify(entry).slice(1)}`;
  });
}

document.querySelector("#export").addEventListener("click", () => {
  const open = cards.find(lacksClass);
  if (open) {
    show(open);
    said.textContent = "This object needs a class";
    return;
  }
  const dataset = JSON.stringify(sheet.dataset.dataset);
  const content = `{"dataset": ${dataset}, "decisions": [\n${decisions().join(",\n")}\n]}\n`;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content]));
  link.download = "decisions.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the download may begin later
});

// o, b, i and u decide and go on; j and k only go; a digit is a class
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, dialog")) {
    return;
  }
  const current = cards.indexOf(event.target.closest(".candidate"));
  const decision = { o: "object", b: "background", i: "ignore", u: "" }[event.key];
  const card = cards[Math.max(current, 0)];
  if (!card) return;
  let next = null;
  if (decision !== undefined) {
    choose(card, decision);
    next = lacksClass(card) ? card : cards[Math.max(current, 0) + 1] ?? card;
  } else if (event.key >= "1" && event.key <= "9") {
    const names = card.querySelector("select").options;
    if (names[event.key]) names[event.key].selected = true;
  } else if (event.key === "j" || event.key === "k") {
    next = cards[current + (event.key === "j" ? 1 : -1)] ?? card;
  }
  if (next) show(next);
  save();
});
sheet.addEventListener("change", save);
restore();
update();
