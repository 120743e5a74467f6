/* Equations 5 to 8 of one map, the closed-form gradient of the entropy, and the mask that holds a share of the attention.
   The same numbers as sarlib's, which tests/book/test_scripts.py checks on 200 maps. */
window.SAR = window.SAR || {};

/* S: h * w numbers, row by row. Returns mean, B, label (0 or the component's number), P, H in nats, gradient (dH/dS). */
SAR.entropy = function (S, h, w) {
  var n = h * w, sum = 0, low = Infinity, high = -Infinity, i, j;
  for (i = 0; i < n; i++) { sum += S[i]; low = Math.min(low, S[i]); high = Math.max(high, S[i]); }
  var mean = high > low ? sum / n : low;
  var B = S.map(function (s) { return Math.max(0, s - mean); });
  var label = new Array(n).fill(0), mass = [], total = 0;
  for (i = 0; i < n; i++) {
    if (!B[i] || label[i]) continue;
    var number = mass.push(0), open = [i];
    label[i] = number;
    while (open.length) {
      var at = open.pop(), y = Math.floor(at / w), x = at % w;
      mass[number - 1] += B[at];
      for (var v = Math.max(0, y - 1); v <= Math.min(h - 1, y + 1); v++)
        for (var u = Math.max(0, x - 1); u <= Math.min(w - 1, x + 1); u++) {
          j = v * w + u;
          if (B[j] && !label[j]) { label[j] = number; open.push(j); }
        }
    }
  }
  mass.forEach(function (m) { total += m; });
  var P = mass.map(function (m) { return m / total; });
  var H = P.reduce(function (all, p) { return p > 0 ? all - p * Math.log(p) : all; }, 0);
  var inner = label.map(function (c) { return c ? -(Math.log(P[c - 1]) + H) / total : 0; });
  var average = inner.reduce(function (all, g) { return all + g; }, 0) / n;
  return { mean: mean, B: B, label: label, P: P, H: H, gradient: inner.map(function (g) { return g - average; }) };
};

SAR.softmax = function (S) {
  var top = Math.max.apply(null, S), e = S.map(function (s) { return Math.exp(s - top); }), sum = 0;
  e.forEach(function (one) { sum += one; });
  return e.map(function (one) { return one / sum; });
};

/* The fewest tokens that hold at least this share of softmax(S), the largest first. */
SAR.mask = function (S, share) {
  var p = SAR.softmax(S), order = p.map(function (_, i) { return i; }), inside = new Array(p.length).fill(false), held = 0;
  order.sort(function (a, b) { return p[b] - p[a]; });
  for (var i = 0; i < order.length && held < share * (1 - 1e-6); i++) { inside[order[i]] = true; held += p[order[i]]; }
  return inside;
};

SAR.COLOURS = ["#2b8ac9", "#d9722b", "#3a9d5d", "#a95fc2", "#c94f6d", "#8c7a2e", "#4aa3a3", "#7d6fd0"];

/* A new element: an SVG one if the name is one of SVG's. */
SAR.make = function (name, attributes, parent, text) {
  var svg = ["svg", "rect", "circle", "line", "image", "text", "g"].indexOf(name) >= 0;
  var made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (var key in attributes || {}) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
};

/* A labelled slider; `act` gets its number. */
SAR.slider = function (parent, label, range, act) {
  var line = SAR.make("label", { "class": "sar-slider" }, parent, label + " ");
  var input = SAR.make("input", { type: "range", min: range[0], max: range[1], step: range[2], value: range[3] }, line);
  var shown = SAR.make("output", {}, line, range[3]);
  input.addEventListener("input", function () { shown.textContent = input.value; act(parseFloat(input.value)); });
  return input;
};

/* An interaction shows itself once it is there; without scripts its place stays empty and the figure beside it says the same. */
SAR.ready = function (place) { place.hidden = false; };
