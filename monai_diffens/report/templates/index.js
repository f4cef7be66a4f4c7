// The index: sort by a column, find cases. Without scripts it is a plain table.
"use strict";
(() => {
  const table = document.getElementById("index"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells], count = document.getElementById("count");
  const search = document.getElementById("search"), warned = document.getElementById("warned");
  const last = heads.findIndex((head) => head.textContent === "warnings");
  const rows = [...body.rows].map((element) => ({
    element,
    text: (element.cells[1].textContent + " " + element.cells[last].textContent).toLowerCase(),
    warned: Number(element.cells[last].dataset.order) > 0,
    orders: [...element.cells].map((cell) => cell.dataset.order),
  }));
  const compare = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" }).compare;

  function sort(column) {
    const head = heads[column], down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numbers = rows.every(({ orders }) => orders[column] === "" || !Number.isNaN(Number(orders[column])));
    rows.sort((a, b) => {
      const [x, y] = [a.orders[column], b.orders[column]];
      if (x === "" || y === "") return (x === "") - (y === ""); // what has no value comes last
      const order = numbers && column !== 1 ? x - y : compare(x, y);
      return down ? -order : order;
    });
    body.append(...rows.map(({ element }) => element));
  }

  function find() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const hit = words.every((word) => row.text.includes(word)) && (!warned?.checked || row.warned);
      row.element.hidden = !hit;
      shown += hit;
    }
    const all = rows.length;
    count.textContent = (shown === all ? `${all}` : `${shown} of ${all}`) + (all === 1 ? " result" : " results");
  }

  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => sort(column)));
  search.addEventListener("input", find);
  warned?.addEventListener("change", find);
  document.documentElement.dataset.index = "ready";
  performance.mark("index-ready");
})();
