// The viewer of a case: two linked NiiVue canvases, before and after, on the grid of the result.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const about = JSON.parse($("about").textContent);
  const layers = new Map(about.layers.map((layer) => [layer.key, layer]));
  const CROSS = [0.3, 0.75, 1, 0.75], LINE = 1.3; // of the cross-hair: colour, and width in pixels

  // ---- what the page holds ----------------------------------------------------------------------------

  function decoded(text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const binary = atob(text), bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  }

  async function unpacked(id) {
    const element = $(id);
    const stream = new Blob([decoded(element.textContent)]).stream();
    const buffer = await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
    element.remove(); // its text takes as much memory as the voxels
    return buffer;
  }

  // A NIfTI-1 file: what is needed of its header, and its voxels.
  function volume(buffer) {
    const view = new DataView(buffer);
    const shape = [1, 2, 3].map((i) => view.getInt16(40 + 2 * i, true));
    const affine = [0, 1, 2].map((row) => [0, 1, 2, 3].map((i) => view.getFloat32(280 + 16 * row + 4 * i, true)));
    const kind = view.getInt16(70, true) === 2 ? Uint8Array : Int16Array;
    return {
      buffer, shape, affine,
      values: new kind(buffer, view.getFloat32(108, true)),
      slope: view.getFloat32(112, true), offset: view.getFloat32(116, true),
    };
  }

  const known = new Map();
  function raw(key) {
    if (!known.has(key)) known.set(key, unpacked("volume-" + key).then(volume));
    return known.get(key);
  }

  // ---- geometry ---------------------------------------------------------------------------------------

  function inverse(m) { // of a 3 x 4 affine
    const [[a, b, c, x], [d, e, f, y], [g, h, i, z]] = m;
    const det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    const r = [
      [(e * i - f * h) / det, (c * h - b * i) / det, (b * f - c * e) / det],
      [(f * g - d * i) / det, (a * i - c * g) / det, (c * d - a * f) / det],
      [(d * h - e * g) / det, (b * g - a * h) / det, (a * e - b * d) / det],
    ];
    return r.map((row) => [...row, -(row[0] * x + row[1] * y + row[2] * z)]);
  }

  function product(m, n) {
    return m.map((row) => [0, 1, 2, 3].map((j) =>
      row[0] * n[0][j] + row[1] * n[1][j] + row[2] * n[2][j] + (j === 3 ? row[3] : 0)));
  }

  // Indices and weights of the voxels of `from` that each voxel of an axis of the result lies between.
  function neighbours(scale, shift, length, count, nearest) {
    const first = new Int32Array(length), second = new Int32Array(length), share = new Float32Array(length);
    for (let k = 0; k < length; k++) {
      const at = scale * k + shift;
      const place = Math.min(Math.max(nearest ? Math.round(at) : at, 0), count - 1);
      first[k] = Math.floor(place);
      second[k] = Math.min(first[k] + 1, count - 1);
      share[k] = place - first[k];
      if (at < -0.5 || at > count - 0.5) first[k] = -1; // outside of its field of view
    }
    return { first, second, share };
  }

  // A volume on the result's grid. Both are in one order of axes, so that axes go one by one.
  function onGrid(from, grid, nearest) {
    const [X, Y, Z] = grid.shape, [x, y] = from.shape;
    const m = product(inverse(from.affine), grid.affine);
    const [ax, ay, az] = [0, 1, 2].map((i) =>
      neighbours(m[i][i], m[i][3], grid.shape[i], from.shape[i], nearest));
    const voxels = from.values, values = new Int16Array(X * Y * Z);
    const whole = (axis) => axis.share.every((value) => value === 0);
    const simple = nearest || [ax, ay, az].every(whole);
    let n = 0;
    for (let k = 0; k < Z; k++) {
      const k0 = az.first[k] * x * y, k1 = az.second[k] * x * y, wz = az.share[k];
      for (let j = 0; j < Y; j++) {
        const j0 = ay.first[j] * x, j1 = ay.second[j] * x, wy = ay.share[j];
        if (k0 < 0 || j0 < 0) { n += X; continue; }
        for (let i = 0; i < X; i++, n++) {
          const i0 = ax.first[i];
          if (i0 < 0) continue;
          if (simple) { values[n] = voxels[k0 + j0 + i0]; continue; }
          const i1 = ax.second[i], wx = ax.share[i];
          const row = (p) => voxels[p + i0] + wx * (voxels[p + i1] - voxels[p + i0]);
          const a = row(k0 + j0), c = wz ? row(k1 + j0) : a;
          const b = wy ? row(k0 + j1) : a, d = wz ? (wy ? row(k1 + j1) : c) : b;
          const low = a + wy * (b - a), high = c + wy * (d - c);
          values[n] = Math.round(low + wz * (high - low));
        }
      }
    }
    return values;
  }

  // A NIfTI file with the result's header and other voxels.
  function withValues(grid, values) {
    const buffer = new ArrayBuffer(352 + values.byteLength);
    new Uint8Array(buffer).set(new Uint8Array(grid.buffer, 0, 352));
    new Int16Array(buffer, 352).set(values);
    return volume(buffer);
  }

  // ---- what can be shown ------------------------------------------------------------------------------

  const befores = [], overlays = [{ key: "", title: "none" }];
  for (const layer of layers.values()) {
    if (layer.colours) overlays.push(layer);
    else if (layer.key === "scan") {
      befores.push({ key: "scan", title: "scan slices", nearest: true });
      befores.push({ key: "scan", title: "scan interpolated", nearest: false });
    } else if (layer.key !== "result") befores.push({ ...layer, nearest: true });
  }
  if (about.measured) overlays.splice(1, 0, { key: "difference", title: "difference" });

  const made = new Map();
  async function beforeVolume(choice) {
    const key = choice.key + choice.nearest;
    if (!made.has(key)) {
      const [from, grid] = [await raw(choice.key), await raw("result")];
      made.set(key, withValues(grid, onGrid(from, grid, choice.nearest)));
    }
    return made.get(key);
  }

  // Result less interpolated scan, cut where the colours end: the 99.5th percentile of its size.
  async function difference() {
    if (!made.has("difference")) {
      const grid = await raw("result");
      const scan = await beforeVolume({ key: "scan", nearest: false });
      const values = new Int16Array(grid.values.length), counts = new Uint32Array(32768);
      let voxels = 0;
      for (let n = 0; n < values.length; n++) {
        if (grid.values[n] <= 0 && scan.values[n] <= 0) continue;
        const off = grid.values[n] - scan.values[n];
        values[n] = off;
        counts[Math.min(Math.abs(off), 32767)]++;
        voxels++;
      }
      let most = 32767, beyond = counts[most];
      while (most > 1 && beyond < 0.005 * voxels) beyond += counts[--most];
      const shown = values.map((off) => Math.max(-most, Math.min(most, off)));
      const drawn = withValues(grid, shown);
      made.set("difference", { ...drawn, exact: values, most: most * grid.slope });
    }
    return made.get("difference");
  }

  // Blue, nothing, red: small differences leave the picture as it is.
  function differenceColours() {
    const table = { R: [], G: [], B: [], A: [], I: [] };
    for (let i = 0; i < 256; i++) {
      const t = (i - 127.5) / 127.5, s = Math.abs(t);
      const light = Math.round(235 * Math.max(0, s - 0.35) / 0.65);
      const [r, g, b] = t < 0 ? [light * 0.45, 60 + light * 0.75, 255] : [255, 50 + light * 0.75, 30 + light * 0.35];
      table.R.push(Math.round(r)); table.G.push(Math.round(g)); table.B.push(Math.round(b));
      table.A.push(s < 0.2 ? 0 : 255);
      table.I.push(i);
    }
    return table;
  }

  // ---- the two canvases -------------------------------------------------------------------------------

  const state = { mode: "swipe", plane: 3, before: 0, overlay: 0, mix: 40 };
  let one, two; // before and after
  let grid, scan, after; // volumes that are shown

  function niivue(library) {
    const { DRAG_MODE, SHOW_RENDER } = library;
    const viewer = new library.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: CROSS, crosshairWidth: LINE, crosshairWidthUnit: "mm", crosshairGap: 8,
      fontColor: [0.85, 0.88, 0.92, 1], fontMinPx: 14, fontSizeScaling: 0.2, isCornerOrientationText: true,
      isColorbar: false, isOrientCube: false, dragAndDropEnabled: false, logLevel: "error", loadingText: "",
      multiplanarShowRender: SHOW_RENDER.NEVER, multiplanarPadPixels: 6, isNearestInterpolation: false,
      isRadiologicalConvention: false, isAntiAlias: false, yoke3Dto2DZoom: false, sagittalNoseLeft: false,
      mouseEventConfig: {
        leftButton: { primary: DRAG_MODE.crosshair, withShift: DRAG_MODE.pan },
        rightButton: DRAG_MODE.windowing, centerButton: DRAG_MODE.pan,
      },
    });
    return viewer;
  }

  // NiiVue prepares light and shade for 3D renderings with every volume, most of the time that a volume
  // takes. Here are slices only: what it draws for that is thrown away unseen.
  function withoutShading(viewer) {
    const { gl, blurShader: shader } = viewer;
    const use = shader.use.bind(shader), refresh = viewer.refreshLayers.bind(viewer);
    shader.use = (context) => { use(context); gl.enable(gl.RASTERIZER_DISCARD); };
    viewer.refreshLayers = (...given) => { refresh(...given); gl.disable(gl.RASTERIZER_DISCARD); };
  }

  async function image(data, name, colours, low, high) {
    const shown = await self.niivue.NVImage.new(
      data.buffer, name + ".nii", colours, 1, null, low, high, true, 0.02, false, false);
    return shown;
  }

  async function setBefore() {
    scan = await beforeVolume(befores[state.before]);
    const { cal_min: low, cal_max: high } = two.volumes[0];
    const next = await image(scan, "before", "gray", low, high);
    one.addVolume(next);
    while (one.volumes.length > 1) one.removeVolume(one.volumes[0]);
    $("before-name").textContent = befores[state.before].title;
    link(two, one);
  }

  async function setOverlay() {
    const layer = overlays[state.overlay];
    while (two.volumes.length > 1) two.removeVolume(two.volumes[1]);
    after = null;
    if (layer.key) {
      let low = layer.least, high = layer.most;
      if (layer.key === "difference") {
        after = await difference();
        [low, high] = [-after.most, after.most];
        two.addColormap("difference", differenceColours());
      } else {
        after = await raw(layer.key);
        const [R, G, B, A] = layer.colours;
        two.addColormap(layer.key, { R, G, B, A, I: [...R.keys()] });
      }
      two.addVolume(await image(after, layer.key, layer.key, low, high));
      two.setOpacity(1, $("strength").value / 100);
    }
    legend(layer);
    $("overlay-name").textContent = layer.key ? " + " + layer.title : "";
    two.drawScene();
    readout();
  }

  function legend(layer) {
    $("legend").hidden = !layer.key;
    if (!layer.key) return;
    const context = $("legend-bar").getContext("2d"), pixels = context.createImageData(256, 1);
    const table = layer.key === "difference" ? differenceColours() : null;
    const [R, G, B] = table ? [table.R, table.G, table.B] : layer.colours;
    const [low, high] = table ? [-after.most, after.most] : [layer.low, layer.high];
    for (let i = 0; i < 256; i++) { // the table spans the stored values, the legend those that have colours
      const value = low + (high - low) * i / 255;
      const at = table ? i : Math.round(255 * (value - layer.least) / (layer.most - layer.least));
      const to = Math.max(1, Math.min(255, at));
      const clear = table && table.A[i] === 0;
      pixels.data.set(clear ? [128, 128, 128, 60] : [R[to], G[to], B[to], 255], 4 * i);
    }
    context.putImageData(pixels, 0, 0);
    $("legend-low").textContent = number(low);
    $("legend-high").textContent = number(high);
    $("legend-title").textContent = (table ? "result less interpolated scan" : layer.title) + (layer.key.startsWith("weight-") ? "" : about.unit);
  }

  // ---- linking, reading out, drawing ------------------------------------------------------------------

  const number = (value) => (Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3))
    ? value.toExponential(2) : String(+value.toPrecision(4));

  let window_ = [0, about.white];
  function link(from, to) {
    if (!from.volumes.length || !to.volumes.length) return;
    to.scene.crosshairPos = from.scene.crosshairPos.slice();
    to.scene.pan2Dxyzmm = from.scene.pan2Dxyzmm.slice();
    const { cal_min: low, cal_max: high } = from.volumes[0];
    if (to.volumes[0].cal_min !== low || to.volumes[0].cal_max !== high) {
      to.volumes[0].cal_min = low;
      to.volumes[0].cal_max = high;
      to.updateGLVolume();
    }
    if (low !== window_[0] || high !== window_[1]) {
      window_ = [low, high];
      $("low").value = 1000 * low / about.white;
      $("high").value = 1000 * high / about.white;
    }
    to.drawScene();
    readout();
    handles();
  }

  let waiting = null; // one link a frame, whatever comes
  function linkSoon(from) {
    if (!waiting) requestAnimationFrame(() => { const source = waiting; waiting = null; link(source, source === one ? two : one); });
    waiting = from;
  }

  function readout() {
    if (!grid) return;
    const mm = two.frac2mm(two.scene.crosshairPos);
    const stored = (data, values = data.values) => {
      const [i, j, k] = inverse(data.affine).map((row, axis) => Math.max(0, Math.min(data.shape[axis] - 1,
        Math.round(row[0] * mm[0] + row[1] * mm[1] + row[2] * mm[2] + row[3]))));
      return values[i + data.shape[0] * (j + data.shape[1] * k)];
    };
    const say = (data, values) => number(stored(data, values) * data.slope + data.offset);
    const side = (value, letters) => `${letters[value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`;
    const parts = [
      `${side(mm[0], "RL")}, ${side(mm[1], "AP")}, ${side(mm[2], "SI")} mm`,
      `before ${scan ? say(scan) : "-"}`, `after ${say(grid)}`,
    ];
    if (after) {
      const none = !after.exact && stored(after) === 0; // a map has no value there
      parts.push(`${overlays[state.overlay].title} ${none ? "-" : say(after, after.exact)}`);
    }
    $("readout").textContent = parts.join("   \u00b7   ") + (about.unit ? `   \u00b7   unit: 1${about.unit}` : "");
  }

  // In every slice the result begins right of a handle; both canvases lie one above the other.
  function tiles() {
    const ratio = two.uiData.dpr || 1;
    return two.screenSlices.filter((tile) => tile.axCorSag <= 2)
      .map((tile) => tile.leftTopWidthHeight.map((value) => value / ratio));
  }

  // The cross-hair is as thin on every screen; NiiVue takes its width in mm.
  function crosshair() {
    const sizes = two.screenSlices.filter((tile) => tile.axCorSag <= 2)
      .map((tile) => tile.fovMM[0] / tile.leftTopWidthHeight[2]);
    const width = $("cross").checked && sizes.length ? LINE * (two.uiData.dpr || 1) * Math.max(...sizes) : 0;
    for (const viewer of [one, two]) {
      const now = viewer.opts.crosshairWidth;
      if (Math.abs(now - width) > 0.05 * Math.max(now, width)) viewer.setCrosshairWidth(width);
    }
  }

  let dragged = null;
  function handles() {
    crosshair();
    const pane = $("pane-after"), box = $("handles");
    pane.style.clipPath = pane.style.opacity = "";
    if (state.mode === "fade") pane.style.opacity = state.mix / 100;
    if (state.mode !== "swipe") { box.replaceChildren(); return; }
    const found = tiles();
    const shapes = found.map(([left, top, width, height]) => {
      const x = left + width * state.mix / 100;
      return `M${x} ${top}H${left + width}V${top + height}H${x}Z`;
    });
    pane.style.clipPath = `path("${shapes.join("") || "M0 0Z"}")`;
    while (box.children.length > found.length) box.lastChild.remove();
    while (box.children.length < found.length) {
      const handle = document.createElement("div");
      handle.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        handle.setPointerCapture(event.pointerId);
        dragged = handle;
      });
      handle.addEventListener("pointermove", (event) => {
        if (dragged !== handle) return;
        const [left, , width] = tiles()[[...box.children].indexOf(handle)];
        const at = event.clientX - $("stage").getBoundingClientRect().left - left;
        setMix(100 * at / width);
      });
      for (const name of ["pointerup", "pointercancel"]) handle.addEventListener(name, () => { dragged = null; });
      box.append(handle);
    }
    found.forEach(([left, top, width, height], i) => {
      Object.assign(box.children[i].style, {
        left: `${left + width * state.mix / 100}px`, top: `${top}px`, height: `${height}px`,
      });
    });
  }

  function setMix(value) {
    state.mix = Math.max(0, Math.min(100, value));
    $("mix").value = state.mix;
    handles();
  }

  function setMode(mode) {
    state.mode = mode;
    $("stage").dataset.mode = mode;
    for (const button of document.querySelectorAll("[data-mode]")) {
      if (button.tagName === "BUTTON") button.setAttribute("aria-pressed", button.dataset.mode === mode);
    }
    $("mix-label").hidden = mode === "side";
    for (const viewer of [one, two]) { viewer.resizeListener(); viewer.drawScene(); }
    handles();
  }

  function setPlane(plane) {
    state.plane = plane;
    for (const button of document.querySelectorAll("[data-plane]")) {
      button.setAttribute("aria-pressed", +button.dataset.plane === plane);
    }
    $("stage").dataset.plane = plane;
    for (const viewer of [one, two]) viewer.setSliceType(plane);
    handles();
  }

  function setWindow(low, high) {
    const least = about.white / 500;
    for (const viewer of [one, two]) {
      if (!viewer.volumes.length) continue;
      viewer.volumes[0].cal_min = low;
      viewer.volumes[0].cal_max = Math.max(high, low + least);
      viewer.updateGLVolume();
    }
    link(two, one);
  }

  function zoom(factor) {
    const pan = two.scene.pan2Dxyzmm.slice(), now = Math.max(1, Math.min(12, pan[3] * factor));
    const mm = two.frac2mm(two.scene.crosshairPos); // stays where it is
    for (let i = 0; i < 3; i++) pan[i] = now === 1 ? 0 : pan[i] + (pan[3] - now) * mm[i];
    pan[3] = now;
    two.setPan2Dxyzmm(pan);
    link(two, one);
  }

  function place(mm) {
    two.scene.crosshairPos = two.mm2frac(mm);
    two.drawScene();
    link(two, one);
  }

  function reset() {
    two.scene.pan2Dxyzmm = two.scene.pan2Dxyzmm.map((_, i) => (i === 3 ? 1 : 0));
    setWindow(0, about.white);
    place(about.place);
  }

  function step(right, front, up) {
    two.moveCrosshairInVox(right, front, up);
    link(two, one);
  }

  // ---- controls ---------------------------------------------------------------------------------------

  function fill(select, choices, chosen, set) {
    for (const [i, choice] of choices.entries()) select.add(new Option(choice.title, i, false, i === chosen));
    select.addEventListener("change", () => set(+select.value));
  }

  // One choice after the other, and of several that wait the last one only.
  let running = Promise.resolve();
  function choose(name, i, set) {
    state[name] = i;
    $(name).value = i;
    running = running.then(() => state[name] === i && set()).catch(console.error);
  }
  const chooseBefore = (i) => choose("before", i, setBefore);
  const chooseOverlay = (i) => choose("overlay", i, setOverlay);

  function key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const flip = state.plane === 3 ? 0 : state.plane; // arrows move in the plane that is shown
    const across = [[0, 0, 1], [0, 1, 0], [1, 0, 0]][flip];
    const aside = flip === 2 ? [0, 1, 0] : [$("radiological").checked ? -1 : 1, 0, 0];
    const upwards = flip === 0 ? [0, 1, 0] : [0, 0, 1];
    const move = (axis, sign) => () => step(...axis.map((value) => sign * value));
    const actions = {
      ArrowLeft: move(aside, -1), ArrowRight: move(aside, 1), ArrowUp: move(upwards, 1), ArrowDown: move(upwards, -1),
      PageUp: move(across, 1), PageDown: move(across, -1),
      "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: reset,
      1: () => setMode("side"), 2: () => setMode("swipe"), 3: () => setMode("fade"),
      " ": () => { if (state.mode === "side") setMode("fade"); setMix(state.mix > 50 ? 0 : 100); },
      p: () => setPlane((state.plane + 1) % 4), o: () => chooseOverlay((state.overlay + 1) % overlays.length),
    };
    const action = actions[event.key] || actions[event.key.toLowerCase()];
    if (action) { event.preventDefault(); action(); }
  }

  function controls() {
    fill($("before"), befores, state.before, chooseBefore);
    fill($("overlay"), overlays, state.overlay, chooseOverlay);
    for (const button of document.querySelectorAll("button[data-mode]")) {
      button.addEventListener("click", () => setMode(button.dataset.mode));
    }
    for (const button of document.querySelectorAll("button[data-plane]")) {
      button.addEventListener("click", () => setPlane(+button.dataset.plane));
    }
    $("in").addEventListener("click", () => zoom(1.25));
    $("out").addEventListener("click", () => zoom(0.8));
    $("reset").addEventListener("click", reset);
    $("mix").addEventListener("input", () => setMix(+$("mix").value));
    $("strength").addEventListener("input", () => {
      if (two.volumes.length > 1) two.setOpacity(1, $("strength").value / 100);
    });
    for (const id of ["low", "high"]) {
      $(id).addEventListener("input", () =>
        setWindow(+$("low").value * about.white / 1000, +$("high").value * about.white / 1000));
    }
    $("smooth").addEventListener("change", () => [one, two].forEach((v) => v.setInterpolation(!$("smooth").checked)));
    $("cross").addEventListener("change", handles);
    $("radiological").addEventListener("change", () => {
      [one, two].forEach((v) => v.setRadiologicalConvention($("radiological").checked));
      handles();
    });
    const stage = $("stage");
    stage.addEventListener("keydown", (event) => { event.stopPropagation(); key(event); }, true);
    stage.addEventListener("keyup", (event) => event.stopPropagation(), true);
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
    }, { capture: true, passive: false });
    for (const viewer of [one, two]) {
      viewer.canvas.addEventListener("mousedown", () => stage.focus({ preventScroll: true }));
      for (const name of ["mousedown", "mousemove", "mouseup", "wheel", "touchstart", "touchmove", "touchend"]) {
        viewer.canvas.addEventListener(name, (event) => {
          if (name !== "mousemove" || event.buttons) linkSoon(viewer);
        }, { passive: true });
      }
    }
    new ResizeObserver(() => requestAnimationFrame(handles)).observe(stage);
  }

  // ---- start ------------------------------------------------------------------------------------------

  function fallback(why) {
    $("fallback").textContent = why;
    $("fallback").hidden = false;
    $("viewer").hidden = true;
    $("static").open = true;
    document.documentElement.dataset.viewer = "none";
  }

  async function start() {
    const test = document.createElement("canvas").getContext("webgl2");
    if (!test || !self.DecompressionStream) {
      const lacking = test ? "cannot unpack the volumes (no DecompressionStream)" : "has no WebGL2";
      fallback(`This browser ${lacking}: here are pictures instead of the viewer. A current Firefox, Chrome, Edge or Safari with hardware acceleration shows it.`);
      return;
    }
    test.getExtension("WEBGL_lose_context")?.loseContext();
    $("viewer").hidden = false;
    $("static").open = false;
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await unpacked("library"));
    document.head.append(script);
    [one, two] = [niivue(self.niivue), niivue(self.niivue)];
    state.mode = "swipe";
    $("stage").dataset.mode = state.mode;
    await one.attachToCanvas($("canvas-before"), false);
    await two.attachToCanvas($("canvas-after"), false);
    [one, two].forEach(withoutShading);
    grid = await raw("result");
    two.addVolume(await image(grid, "result", "gray", 0, about.white));
    if (befores.length) await setBefore();
    controls();
    setPlane(state.plane);
    setMode(befores.length ? state.mode : "side");
    await setOverlay();
    place(about.place);
    $("busy").remove();
    document.documentElement.dataset.viewer = "ready";
    performance.mark("viewer-ready");
  }

  // the page is painted first
  requestAnimationFrame(() => setTimeout(() => start().catch((error) => {
    console.error(error);
    fallback("The viewer could not start here: here are pictures instead.");
  })));
})();
