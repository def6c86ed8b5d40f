"use strict";
// A table is sorted by a click on a header: numbers the largest first, text from A to Z, again the
// other way round. What is no number ("n/a") stays last among numbers.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const text = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...body.rows];
      const values = new Map(rows.map((row) => [row, Number.parseFloat(text(row))]));
      const numeric = rows.every((row) => !Number.isNaN(values.get(row)) ||
        ["", "n/a"].includes(text(row)));
      const before = head.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : numeric;
      const sign = descending ? -1 : 1;
      rows.sort((a, b) => {
        if (!numeric) return sign * text(a).localeCompare(text(b), undefined, { numeric: true });
        const [x, y] = [values.get(a), values.get(b)];
        return Number.isNaN(x) - Number.isNaN(y) || sign * (x - y) || 0;
      });
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}

// A picture is magnified by a click, Enter or the space bar; a second click brings it closer, the
// arrow keys show its neighbours, Escape closes.
const dialog = document.createElement("dialog");
dialog.className = "zoom";
// The event comes later than what closes it: by then it may show the next picture
dialog.addEventListener("close", () => dialog.open || dialog.replaceChildren());
document.body.append(dialog);

function magnify(picture) {
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Close";
  close.addEventListener("click", () => dialog.close());
  const copy = picture.cloneNode(true);
  copy.classList.remove("zoomable");
  copy.removeAttribute("tabindex");
  copy.addEventListener("click", () => dialog.classList.toggle("closer"));
  const caption = document.createElement("p");
  const parts = picture.closest("figure")?.querySelectorAll("figcaption, h3, .legend") ?? [];
  for (const part of parts) caption.append(...part.cloneNode(true).childNodes, " ");
  caption.className = "legend";
  dialog.replaceChildren(close, copy, caption);
  dialog.classList.remove("closer");
  dialog.picture = picture;
  if (!dialog.open) dialog.showModal();
}

document.addEventListener("click", (event) => {
  const picture = event.target.closest(".zoomable");
  if (picture) magnify(picture);
});
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (dialog.open && step && !dialog.classList.contains("closer")) {
    const pictures = [...document.querySelectorAll(".zoomable")];
    const next = pictures[pictures.indexOf(dialog.picture) + step];
    if (next) magnify(next);
  } else if (["Enter", " "].includes(event.key) && event.target.matches(".zoomable")) {
    event.preventDefault();
    magnify(event.target);
  }
});
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
