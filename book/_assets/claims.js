/* Sort the table of claims by any column, and show one verdict only. Without it the table is whole, in the order of the paper. */
(function () {
  var table = document.getElementById("claims-table"), filter = document.getElementById("claims-filter");
  if (!table || !filter) return;
  var body = table.tBodies[0], rows = Array.prototype.slice.call(body.rows), heads = table.tHead.rows[0].cells;
  function value(row, column) { return row.cells[column].getAttribute("data-sort") || row.cells[column].textContent; }
  Array.prototype.forEach.call(heads, function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") !== "ascending";
      Array.prototype.forEach.call(heads, function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort(function (a, b) {
        var x = value(a, column), y = value(b, column), difference = Number(x) - Number(y);
        var order = isNaN(difference) ? x.localeCompare(y, "en", { numeric: true }) : difference;
        return up ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
  filter.hidden = false;
  filter.querySelector("select").addEventListener("change", function (event) {
    var shown = 0;
    rows.forEach(function (row) {
      row.hidden = event.target.value !== "" && row.getAttribute("data-verdict") !== event.target.value;
      shown += row.hidden ? 0 : 1;
    });
    filter.querySelector("output").textContent = shown + " of " + rows.length + " lines";
  });
})();
