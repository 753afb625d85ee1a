"use strict";
for (const table of document.querySelectorAll("table.sorts")) {
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);
  const language = new Intl.Collator("en", { numeric: true });

  // What has no number stays at the end, whichever way the rest goes.
  function compare(a, b, column, sign) {
    const [left, right] = [a.cells[column], b.cells[column]];
    if (heads[column].classList.contains("number")) {
      const [x, y] = [left.dataset.value, right.dataset.value];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return sign * (Number(x) - Number(y));
    }
    return sign * language.compare(left.textContent.trim(), right.textContent.trim());
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent.trim();
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      body.append(...Array.from(body.rows).sort((a, b) => compare(a, b, column, falls ? -1 : 1)));
    });
  });
}
for (const table of document.querySelectorAll("table.filters")) {
  const rows = Array.from(table.tBodies[0].rows);
  const bar = document.createElement("div");
  bar.className = "filter";
  const label = document.createElement("label");
  const input = document.createElement("input");
  const status = document.createElement("span");
  input.type = "search";
  input.autocomplete = "off";
  label.append("Show rows with", input);
  status.setAttribute("role", "status");
  bar.append(label, status);
  table.parentElement.before(bar);
  function filter() {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    status.textContent = `${shown} of ${rows.length} rows`;
  }
  input.addEventListener("input", filter);
  filter();
}
