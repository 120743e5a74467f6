/* Attention of trained networks: every head of two networks on one image, with the mask that holds a share of the attention.
   Needs entropy.js and the data of attention-data.js. */
(function () {
  var place = document.getElementById("attention-viewer"), data = window.SAR_ATTENTION;
  if (!place || !data) return;
  var make = SAR.make, image = 0, view = "mask", share = 0.6, CELL = 16;
  var VIEWS = [["S", "S"], ["softmax", "softmax(S)"], ["mask", "mask"], ["components", "components"]];

  var strip = make("div", { "class": "sar-strip", role: "radiogroup", "aria-label": "test image" }, place);
  var thumbs = data.images.map(function (one, i) {
    var button = make("button", { type: "button", role: "radio", "aria-label": "image " + (i + 1) + ", " + one["class"] }, strip);
    make("img", { src: "data:image/png;base64," + one.png, alt: "" }, button);
    button.addEventListener("click", function () { image = i; show(); });
    button.addEventListener("keydown", function (event) {
      var step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      image = (image + step + data.images.length) % data.images.length;
      show();
      thumbs[image].focus();
      event.preventDefault();
    });
    return button;
  });
  var group = make("p", { "class": "sar-buttons", role: "group", "aria-label": "what is shown" }, place);
  var buttons = VIEWS.map(function (one) {
    var button = make("button", { type: "button" }, group, one[1]);
    button.addEventListener("click", function () { view = one[0]; show(); });
    return button;
  });
  SAR.slider(place, "share of the attention in the mask, %", [20, 95, 5, 60], function (value) { share = value / 100; show(); });
  var says = make("p", { role: "status", "aria-live": "polite" }, place);
  var rows = make("div", { "class": "sar-heads" }, place);

  function bits(text) {
    return text ? atob(text).split("").reduce(function (all, one) {
      for (var b = 7; b >= 0; b--) all.push(one.charCodeAt(0) >> b & 1);
      return all;
    }, []) : null;
  }

  /* Jaccard index of a mask of k x k tokens with the object's pixels. */
  function jaccard(inside, k, object) {
    if (!object) return null;
    var side = data.pixels, both = 0, either = 0;
    for (var y = 0; y < side; y++) for (var x = 0; x < side; x++) {
      var a = inside[Math.floor(y * k / side) * k + Math.floor(x * k / side)], b = object[y * side + x];
      both += a && b ? 1 : 0;
      either += a || b ? 1 : 0;
    }
    return either ? both / either : null;
  }

  function draw(S, k, inside, found, parent, label) {
    var svg = make("svg", { viewBox: "0 0 " + k * CELL + " " + k * CELL, "class": "sar-map", role: "img", "aria-label": label }, parent);
    if (view === "mask")
      make("image", { href: "data:image/png;base64," + data.images[image].png, width: k * CELL, height: k * CELL,
        style: "image-rendering: pixelated", preserveAspectRatio: "none" }, svg);
    var p = view === "softmax" ? SAR.softmax(S) : S, low = view === "softmax" ? 0 : Math.min.apply(null, p), high = Math.max.apply(null, p);
    S.forEach(function (_, i) {
      var rect = make("rect", { x: (i % k) * CELL, y: Math.floor(i / k) * CELL, width: CELL, height: CELL }, svg);
      if (view === "mask") { rect.setAttribute("class", inside[i] ? "sar-inside" : "sar-outside"); return; }
      var c = found.label[i];
      if (view === "components") { rect.style.fill = c ? SAR.COLOURS[(c - 1) % SAR.COLOURS.length] : "none"; return; }
      rect.style.fillOpacity = high > low ? (p[i] - low) / (high - low) : 0;
    });
  }

  function show() {
    var object = bits(data.images[image].object), best = [];
    thumbs.forEach(function (button, i) {
      button.setAttribute("aria-checked", String(i === image));
      button.tabIndex = i === image ? 0 : -1;
    });
    buttons.forEach(function (button, i) { button.setAttribute("aria-pressed", String(VIEWS[i][0] === view)); });
    rows.textContent = "";
    data.rows.forEach(function (row) {
      var line = make("div", { "class": "sar-row" }, rows), top = 0, entropy = 0;
      make("p", { "class": "sar-name" }, line, row.row);
      row.S[image].forEach(function (map, head) {
        var k = map.length, S = map.reduce(function (all, one) { return all.concat(one); }, []);
        var found = SAR.entropy(S, k, k), inside = SAR.mask(S, share), overlap = jaccard(inside, k, object);
        var words = "H " + Math.abs(found.H).toFixed(2) + ", " + found.P.length + " comp." + (overlap === null ? "" : ", Jaccard " + overlap.toFixed(2));
        var figure = make("figure", {}, line);
        draw(S, k, inside, found, figure, row.row + ", head " + (head + 1) + ": " + words);
        make("figcaption", {}, figure, "head " + (head + 1) + ": " + words);
        top = Math.max(top, overlap || 0);
        entropy += found.H / row.S[image].length;
      });
      best.push(row.row + ": mean H " + entropy.toFixed(2) + (object ? ", best head's Jaccard " + top.toFixed(2) : ""));
    });
    says.textContent = "Image " + (image + 1) + " (" + data.images[image]["class"] + "). " + best.join("; ") + ".";
    place.setAttribute("data-image", image);
  }

  show();
  SAR.ready(place);
})();
