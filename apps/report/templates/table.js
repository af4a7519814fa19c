// Tables that sort by a click on a column's head, and the search over the trials. Without it they are plain tables.
"use strict";
(function () {
  // What a cell is sorted by: words as they are, of anything else the number that it begins with.
  const key = (cell, words) => {
    const said = cell.dataset.v ?? cell.textContent;
    return words ? said : parseFloat(said);
  };
  const unknown = (value) => value === "" || Number.isNaN(value);

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const words = button.dataset.kind === "t";
        const before = head.getAttribute("aria-sort");
        const down = before === "none" ? !words : before === "ascending"; // numbers: the greatest first
        const sign = down ? -1 : 1;
        const rows = [...body.rows].map((row) => ({ row, value: key(row.cells[column], words) }));
        rows.sort((one, other) => {
          if (unknown(one.value) || unknown(other.value)) return unknown(one.value) - unknown(other.value); // last
          return words
            ? sign * one.value.localeCompare(other.value, undefined, { numeric: true })
            : sign * (one.value - other.value);
        });
        for (const each of heads) if (each.hasAttribute("aria-sort")) each.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        body.append(...rows.map((each) => each.row));
      });
    });
  }

  const search = document.getElementById("search");
  if (!search) return;
  const rows = [...document.getElementById("trials").tBodies[0].rows];
  for (const row of rows) if (row.dataset.said) row.querySelector(".warned").title = row.dataset.said;
  const texts = rows.map((row) => `${row.cells[0].textContent} ${row.dataset.said ?? ""} ${row.dataset.words ?? ""}`.toLowerCase());
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, at) => {
      row.hidden = !words.every((word) => texts[at].includes(word));
      count += row.hidden ? 0 : 1;
    });
    document.getElementById("count").textContent = `${count} of ${rows.length} trials`;
  };
  search.addEventListener("input", filter);
  if (search.value) filter(); // what the browser has kept
})();
