// The book's own behaviour: tables that sort and copy, commands that copy. Everything reads without it.
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
        const told = column.some((cell) => text(cell).length > 26);   // a figure, its spread, and words: a line each
        [head.cells[c], ...column].forEach((cell) => cell.classList.add(told ? "told" : "number"));
        if (told) column.forEach((cell) => {
          if (text(cell).length > 90) cell.classList.add("long");
          for (const sign of [" (", " ["]) {
            const first = cell.firstChild, at = first?.nodeType === Node.TEXT_NODE ? first.data.indexOf(sign) : -1;
            if (at > 0) first.splitText(at + 1).before(document.createElement("br"));
          }
        });
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

  // a button that copies; where that is not allowed, it marks the place, ready for Ctrl+C
  const offer = (label, name, write, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = label;
    if (name) button.setAttribute("aria-label", name);
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(write()); button.textContent = "copied"; }
      catch (error) { getSelection().selectAllChildren(place); button.textContent = "selected"; }
      setTimeout(() => { button.textContent = label; }, 1500);
    });
    return button;
  };

  // lines of cells; a cell that spans several places stands in each of them
  const lines = (rows) => {
    const grid = [...rows].map(() => []);
    [...rows].forEach((row, r) => [...row.cells].forEach((cell) => {
      let c = 0;
      while (grid[r][c]) c += 1;
      for (let down = 0; down < cell.rowSpan && grid[r + down]; down += 1)
        for (let right = 0; right < cell.colSpan; right += 1) grid[r + down][c + right] = cell;
    }));
    return grid;
  };
  const flat = (cell) => text(cell).replace(/\s+/g, " ");
  const writeCsv = (table) => lines(table.rows).map((line) => line.map(flat)
    .map((s) => (/[",]/.test(s) ? `"${s.replace(/"/g, '""')}"` : s)).join(",")).join("\r\n") + "\r\n";

  const marked = (cell) => {
    const words = flat(cell).replace(/\|/g, "\\|"), whole = (name) => [...cell.querySelectorAll(name)].find((one) => flat(one) === flat(cell));
    if (words && whole("a[href]")) return `[${words}](${whole("a[href]").href})`;
    return words && whole("code") ? `\`${words}\`` : words;
  };
  const writeMarkdown = (table) => {
    const heads = table.tHead ? lines(table.tHead.rows) : [], body = lines([...table.rows].slice(heads.length));
    const width = Math.max(...[...heads, ...body].map((line) => line.length));
    const head = Array.from({ length: width }, (_, c) => [...new Set(heads.map((line) => line[c]))].filter(Boolean).map(marked).join(" ").trim());
    const rule = head.map((_, c) => (table.dataset[`c${c}`] === "number" ? "--:" : "---"));
    return [head, rule, ...body.map((line) => line.map(marked))].map((line) => `| ${line.join(" | ")} |\n`).join("");
  };

  document.querySelectorAll("main .table-box td > code:only-child").forEach((code) => {
    const cell = code.parentElement, command = code.textContent.trim();
    if (!/\s/.test(command) || cell.textContent.trim() !== command) return;
    cell.classList.add("command");
    cell.dataset.value = command;
    cell.prepend(offer("copy", `Copy: ${command}`, () => command, code));
  });

  // each table under itself, as it is sorted now: for a spreadsheet, and for a Markdown file
  document.querySelectorAll("main .table-box").forEach((box) => {
    const table = box.querySelector("table");
    if (!table || !table.rows.length) return;
    const tools = document.createElement("div");
    tools.className = "table-tools";
    tools.setAttribute("aria-live", "polite");
    tools.append(offer("copy as CSV", "", () => writeCsv(table), table),
                 offer("copy as Markdown", "", () => writeMarkdown(table), table));
    box.after(tools);
  });

  // parts of the sidebar open by keyboard too
  document.querySelectorAll('#quarto-sidebar a[role="button"]:not([href])').forEach((toggle) => toggle.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle.click(); }
  }));
})();
