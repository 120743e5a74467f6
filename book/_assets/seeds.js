/* How many seeds: the intervals and the verdict of a claim for the first n of them. The numbers were calculated by sarlib when the
   book was built (seeds-data.js); this only shows them. Needs entropy.js. */
(function () {
  var place = document.getElementById("seeds-slider"), data = window.SAR_SEEDS;
  if (!place || !data) return;
  var make = SAR.make, chosen = 0, n, W = 640, LINE = 34;
  var label = make("label", {}, place, "claim "), select = make("select", {}, label);
  data.claims.forEach(function (claim, i) { make("option", { value: i }, select, claim.name + ": " + claim.claim); });
  select.addEventListener("change", function () { chosen = Number(select.value); show(); });
  n = data.seeds.length;
  SAR.slider(place, "seeds", [data.fewest, n, 1, n], function (value) { n = value; show(); });
  var says = make("p", { role: "status", "aria-live": "polite" }, place);
  var scroll = make("div", { "class": "scrolls", tabindex: "0", role: "region", "aria-label": "figure, scrolls sideways" }, place);
  var svg = make("svg", { "class": "sar-seeds", role: "img" }, scroll);

  function show() {
    var claim = data.claims[chosen], at = claim.after[n - data.fewest], all = [0];
    claim.contrasts.forEach(function (one) { all = all.concat(one.values); });
    var low = Math.min.apply(null, all), high = Math.max.apply(null, all), room = (high - low) * 0.1 || 1;
    function x(value) { return 220 + (W - 235) * (Math.max(low - room, Math.min(high + room, value)) - low + room) / (high - low + 2 * room); }
    svg.textContent = "";
    svg.setAttribute("viewBox", "0 0 " + W + " " + (LINE * claim.contrasts.length + 26));
    make("line", { x1: x(0), x2: x(0), y1: 4, y2: LINE * claim.contrasts.length, "class": "sar-zero" }, svg);
    make("text", { x: x(0), y: LINE * claim.contrasts.length + 18, "text-anchor": "middle" }, svg, "0");
    claim.contrasts.forEach(function (one, i) {
      var y = LINE * (i + 0.5), interval = at.intervals[i];
      make("text", { x: 0, y: y + 4 }, svg, one.label.length > 34 ? one.label.slice(0, 33) + "…" : one.label);
      one.values.forEach(function (value, j) {
        make("circle", { cx: x(value), cy: y + 9, r: 3, "class": j < n ? "sar-seed" : "sar-seed sar-later" }, svg);
      });
      if (!interval) return;
      make("line", { x1: x(interval[1]), x2: x(interval[2]), y1: y, y2: y, "class": "sar-interval" }, svg);
      make("rect", { x: x(interval[0]) - 4, y: y - 4, width: 8, height: 8, "class": "sar-mean" }, svg);
    });
    var first = at.intervals[at.carrying];
    says.textContent = n + " seeds: " + at.verdict + (first ? ". " + claim.contrasts[at.carrying].label + " = " + first[3] : "") +
      (at.reason ? ". " + at.reason : "") + ".";
    svg.setAttribute("aria-label", says.textContent);
    place.setAttribute("data-verdict", at.verdict);
  }

  show();
  SAR.ready(place);
})();
