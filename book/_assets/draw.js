/* Draw a similarity map; its components, their shares, the entropy and its gradient follow. Needs entropy.js. */
(function () {
  var place = document.getElementById("sar-draw");
  if (!place) return;
  var k = 14, S = [], base = [], offset = 0, scale = 1, raise = true, cursor = 0, rects = [], marks = [];
  var CELL = 20, make = SAR.make;

  function blob(cy, cx, radius) {
    return function (y, x) { return Math.exp(-((y - cy) * (y - cy) + (x - cx) * (x - cx)) / (radius * radius)); };
  }
  function filled(side, value) {
    var map = [];
    for (var y = 0; y < side; y++) for (var x = 0; x < side; x++) map.push(value(y, x));
    return map;
  }
  var seed = 7;
  function random() { seed = (seed * 16807) % 2147483647; return seed / 2147483647; }
  var one = blob(6, 6, 3), two = blob(3, 3, 2.2), three = blob(10, 10, 2.2);
  var choices = [
    ["one blob", function () { return filled(14, one); }],
    ["two blobs", function () { return filled(14, function (y, x) { return two(y, x) + three(y, x); }); }],
    ["four corners", function () {
      return filled(14, function (y, x) { return (y < 3 || y > 10) && (x < 3 || x > 10) ? 1 : 0; });
    }],
    ["noise", function () { return filled(14, random); }],
    ["empty", function () { return filled(14, function () { return 0; }); }]
  ];
  ((window.SAR_ATTENTION || {}).rows || []).forEach(function (row) {
    choices.push(["a head of " + row.row, function () {
      var map = row.S[0][0].reduce(function (all, line) { return all.concat(line); }, []);
      var low = Math.min.apply(null, map), high = Math.max.apply(null, map);
      return map.map(function (s) { return (s - low) / (high - low); });
    }]);
  });

  var buttons = make("p", { "class": "sar-buttons", role: "group", "aria-label": "maps to begin with" }, place);
  choices.forEach(function (choice) {
    make("button", { type: "button" }, buttons, choice[0]).addEventListener("click", function () { start(choice[1]()); });
  });
  var brush = make("button", { type: "button", "aria-pressed": "false", "class": "sar-brush" }, buttons, "brush: raise");
  brush.addEventListener("click", function () {
    raise = !raise;
    brush.textContent = "brush: " + (raise ? "raise" : "lower");
    brush.setAttribute("aria-pressed", String(!raise));
  });

  var both = make("div", { "class": "sar-panels" }, place);
  var left = panel("S: draw here", "similarity map; arrow keys move, space raises or lowers a patch"), right = panel("components and dH/dS", "");
  left.setAttribute("tabindex", "0");
  left.setAttribute("role", "application");
  right.setAttribute("role", "img");
  var says = make("div", { "class": "sar-says" }, both);
  var text = make("p", { role: "status", "aria-live": "polite" }, says), bars = make("div", { "class": "sar-bars" }, says);
  make("p", { "class": "sar-note" }, says,
    "A full dot: raising S there raises H. A ring: it lowers H. Adding a number changes nothing; multiplying leaves H as it is and divides its gradient.");
  SAR.slider(place, "add", [-2, 2, 0.1, 0], function (value) { offset = value; show(); });
  SAR.slider(place, "multiply by", [0.25, 4, 0.25, 1], function (value) { scale = value; show(); });

  function panel(title, label) {
    var figure = make("figure", {}, both);
    make("figcaption", {}, figure, title);
    return make("svg", { "aria-label": label || title, "class": "sar-map" }, figure);
  }

  function start(map) {
    base = map.slice();
    k = Math.round(Math.sqrt(base.length));
    cursor = Math.min(cursor, base.length - 1);
    [left, right].forEach(function (svg) {
      svg.textContent = "";
      svg.setAttribute("viewBox", "0 0 " + k * CELL + " " + k * CELL);
    });
    rects = [left, right].map(function (svg) {
      return base.map(function (_, i) {
        var at = { x: (i % k) * CELL, y: Math.floor(i / k) * CELL, width: CELL, height: CELL };
        return make("rect", at, svg);
      });
    });
    marks = base.map(function (_, i) {
      return make("circle", { cx: (i % k + 0.5) * CELL, cy: (Math.floor(i / k) + 0.5) * CELL, r: 0 }, right);
    });
    show();
  }

  function show() {
    S = base.map(function (s) { return scale * s + offset; });
    var found = SAR.entropy(S, k, k), low = Math.min.apply(null, base), high = Math.max.apply(null, base);
    var steepest = Math.max.apply(null, found.gradient.map(Math.abs));
    base.forEach(function (s, i) {
      rects[0][i].style.fillOpacity = high > low ? (s - low) / (high - low) : 0;
      rects[0][i].classList.toggle("sar-cursor", i === cursor);
      var c = found.label[i];
      rects[1][i].style.fill = c ? SAR.COLOURS[(c - 1) % SAR.COLOURS.length] : "";
      rects[1][i].style.fillOpacity = c ? 1 : 0;
      marks[i].setAttribute("r", steepest ? 0.42 * CELL * Math.sqrt(Math.abs(found.gradient[i]) / steepest) : 0);
      marks[i].classList.toggle("sar-ring", found.gradient[i] < 0);
    });
    var r = found.P.length, h = Math.abs(found.H) < 5e-5 ? 0 : found.H;
    text.textContent = r + (r === 1 ? " component" : " components") + ", mean " + found.mean.toFixed(3) + ", H = " +
      h.toFixed(4) + " nats, largest |dH/dS| " + steepest.toFixed(4);
    place.setAttribute("data-entropy", found.H);
    bars.textContent = "";
    found.P.slice(0, 8).forEach(function (p, j) {
      var bar = make("div", { "class": "sar-bar" }, bars, "P" + (j + 1) + " = " + p.toFixed(3));
      bar.style.setProperty("--share", 100 * p + "%");
      bar.style.setProperty("--colour", SAR.COLOURS[j % SAR.COLOURS.length]);
    });
    if (r > 8) make("div", {}, bars, "and " + (r - 8) + " more");
  }

  function paint(i) {
    cursor = i;
    base[i] = Math.max(0, Math.min(1, base[i] + (raise ? 0.34 : -0.34)));
    show();
  }
  function under(event) {
    var box = left.getBoundingClientRect();
    var x = Math.floor((event.clientX - box.left) / box.width * k), y = Math.floor((event.clientY - box.top) / box.height * k);
    return x >= 0 && y >= 0 && x < k && y < k ? y * k + x : -1;
  }
  var down = false, lately = -1;
  left.addEventListener("pointerdown", function (event) { down = true; lately = under(event); if (lately >= 0) paint(lately); });
  left.addEventListener("pointermove", function (event) {
    var i = under(event);
    if (down && i >= 0 && i !== lately) { lately = i; paint(i); }
  });
  window.addEventListener("pointerup", function () { down = false; });
  left.addEventListener("keydown", function (event) {
    var step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -k, ArrowDown: k }[event.key];
    if (step) { if (base[cursor + step] !== undefined) cursor += step; show(); }
    else if (event.key === " " || event.key === "Enter") paint(cursor);
    else return;
    event.preventDefault();
  });

  start(choices[1][1]());
  SAR.ready(place);
})();
