// Tables that sort by a click on a column's head, and the search over the trials. Without it they are plain tables.
"use strict";
(function () {
  const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;

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
        const rows = [...body.rows].map((row) => ({ row, key: value(row, column) }));
        rows.sort((one, other) => {
          if ((one.key === "") !== (other.key === "")) return one.key === "" ? 1 : -1; // what is not known stays last
          return words
            ? sign * one.key.localeCompare(other.key, undefined, { numeric: true })
            : sign * (Number(one.key) - Number(other.key));
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
  const texts = rows.map((row) => `${row.cells[0].dataset.v} ${row.dataset.s}`.toLowerCase());
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
