// The book's own behaviour: tables that sort, commands that copy. Everything reads without it.
(() => {
  "use strict";
  const number = /^[-+−]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?(?=$|[\s%±[(/×])/i;
  const nothing = /^(|–|—|-|nan|none|<na>|n\/a)$/i;
  const text = (cell) => (cell ? cell.dataset.value ?? cell.textContent : "").trim();
  const value = (s) => parseFloat(number.exec(s)[0].replace(/,/g, "").replace("−", "-"));

  const compare = (a, b, numeric) => (numeric ? value(a) - value(b) : a.localeCompare(b, undefined, { numeric: true }));

  const sort = (table, column, way) => {
    const body = table.tBodies[0], rows = [...body.rows];
    const numeric = table.dataset[`c${column}`] === "number";
    const key = (row) => text(row.cells[column]);
    rows.sort((x, y) => {
      const a = key(x), b = key(y), noA = nothing.test(a), noB = nothing.test(b);
      if (noA || noB) return noA - noB;                        // empty cells come last, either way
      return compare(a, b, numeric) * (way === "ascending" ? 1 : -1);
    });
    body.append(...rows);
  };

  document.querySelectorAll("main .table-box > table").forEach((table) => {
    const body = table.tBodies[0], head = table.tHead && [...table.tHead.rows].pop();
    if (!body || !head || !body.rows.length) return;
    const rows = [...body.rows], width = head.cells.length;
    for (let c = 0; c < width; c += 1) {
      const column = rows.map((row) => row.cells[c]).filter(Boolean), shown = column.map(text).filter((s) => !nothing.test(s));
      if (shown.length && shown.every((s) => number.test(s))) {
        table.dataset[`c${c}`] = "number";
        [head.cells[c], ...column].forEach((cell) => cell.classList.add("number"));
      } else column.forEach((cell) => cell.classList.add(text(cell).length <= 26 ? "short" : "long"));
      if (text(head.cells[c]).length <= 16) head.cells[c].classList.add("short");
    }
    const plain = rows.every((row) => row.cells.length === width && [...row.cells].every((c) => c.rowSpan === 1 && c.colSpan === 1));
    if (!plain || rows.length < 2 || table.tHead.rows.length > 1) return;
    [...head.cells].forEach((th, c) => {
      const button = document.createElement("button");         // a button, so that the keyboard reaches it
      button.type = "button";
      button.className = "sort";
      button.title = "Sort by this column";
      button.append(...th.childNodes);
      th.replaceChildren(button);
      th.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const way = th.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        [...head.cells].forEach((other) => other.setAttribute("aria-sort", "none"));
        th.setAttribute("aria-sort", way);
        sort(table, c, way);
      });
    });
  });

  document.querySelectorAll("main .table-box td > code:only-child").forEach((code) => {
    const cell = code.parentElement, command = code.textContent.trim();
    if (!/\s/.test(command) || cell.textContent.trim() !== command) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy-command";
    button.textContent = "copy";
    button.setAttribute("aria-label", `Copy: ${command}`);
    cell.classList.add("command");
    cell.dataset.value = command;
    cell.prepend(button);
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(command); button.textContent = "copied"; }
      catch (error) { getSelection().selectAllChildren(code); button.textContent = "selected"; }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
  });

  // parts of the sidebar open by keyboard too
  document.querySelectorAll('#quarto-sidebar a[role="button"]:not([href])').forEach((toggle) => toggle.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle.click(); }
  }));
})();
