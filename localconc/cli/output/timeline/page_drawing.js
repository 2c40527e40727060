"use strict";

// How it looks: rows from top to bottom, and what stands in each of them.

const ROW = { title: 40, used: 46, lane: 24, waiting: 44, gap: 20 };
const AXIS_HEIGHT = 30;
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";
const TICKS = [
  1e2, 2e2, 5e2, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 10e6, 15e6, 30e6, 60e6, 120e6, 300e6,
  600e6, 900e6, 1800e6, 3600e6, 7200e6, 10800e6, 21600e6, 43200e6, 86400e6, 172800e6, 604800e6,
];

function layRows(groups) {
  const rows = [];
  let top = 0;
  const add = (kind, height, rest) => {
    rows.push({ kind, top, height, ...rest });
    top += height;
  };
  for (const group of groups) {
    add("title", ROW.title, { group });
    add("used", ROW.used, { group });
    for (const lane of group.lanes) {
      lane.row = rows.length;
      add("lane", ROW.lane, { group, lane });
    }
    add("waiting", ROW.waiting, { group });
    add("gap", ROW.gap, { group });
  }
  return { rows, height: top };
}

class Drawing {
  constructor(timeline, axis, lanes) {
    this.timeline = timeline;
    this.axis = axis;
    this.lanes = lanes;
    this.shortened = new Map();
    Object.assign(this, layRows(timeline.groups));
    this.readColours();
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["surface", "panel", "text", "muted", "line", "faint", "waiting", "waiting-edge", "waiting-text",
      "holding", "holding-text", "notable", "notable-text", "killed", "limit", "used", "accent"];
    this.colour = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  resize(width, height) {
    this.width = width;
    this.height = height;
    this.gutter = Math.round(Math.max(132, Math.min(330, width * 0.3)));
    const scale = window.devicePixelRatio || 1;
    for (const [canvas, tall] of [[this.axis, AXIS_HEIGHT], [this.lanes, height]]) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(tall * scale);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${tall}px`;
      canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
    }
    this.shortened.clear();
  }

  x(moment) {
    return this.gutter + (moment - this.view.from) / (this.view.to - this.view.from) * (this.width - this.gutter);
  }

  moment(x) {
    return this.view.from + (x - this.gutter) / (this.width - this.gutter) * (this.view.to - this.view.from);
  }

  // Draw everything that is in view. `focus` has the bar that is looked at, and those it has to do with.
  draw(view, scrolled, focus) {
    this.view = view;
    this.focus = focus;
    this.drawn = 0;
    this.drawAxis();
    const paint = this.lanes.getContext("2d");
    this.paint = paint;
    paint.fillStyle = this.colour.surface;
    paint.fillRect(0, 0, this.width, this.height);
    this.drawGrid(paint);
    this.drawNow(paint);
    const first = firstPlace(this.rows.length, (index) => this.rows[index].top + this.rows[index].height > scrolled);
    paint.save();
    paint.translate(0, -scrolled);
    for (let index = first; index < this.rows.length && this.rows[index].top < scrolled + this.height; index += 1) {
      this.drawRow(this.rows[index]);
    }
    if (focus.bar) this.drawConnection(focus);
    paint.restore();
  }

  drawRow(row) {
    const { paint } = this;
    if (row.kind === "title") this.drawTitle(row);
    if (row.kind === "lane") this.drawLaneName(row);
    if (row.kind === "used" || row.kind === "waiting") this.drawCurveName(row);
    paint.save();
    paint.beginPath();
    paint.rect(this.gutter, row.top, this.width - this.gutter, row.height);
    paint.clip();
    if (row.kind === "lane") this.drawLane(row);
    if (row.kind === "used") this.drawCurve(row, row.group.used, this.colour.used, row.group.limit);
    if (row.kind === "waiting") this.drawCurve(row, row.group.waiting, this.colour["waiting-edge"], null);
    paint.restore();
  }

  // ── words on the left ────────────────────────────────────────────────────────────────────────────────────────

  text(words, x, y, { size = 12, weight = 400, colour = this.colour.text, align = "left", width = Infinity, ends = false } = {}) {
    const { paint } = this;
    paint.font = `${weight} ${size}px ${FONT}`;
    paint.fillStyle = colour;
    paint.textAlign = align;
    paint.textBaseline = "middle";
    const shown = width === Infinity ? words : this.shorten(words, width, ends);
    paint.fillText(shown, x, y);
    return paint.measureText(shown).width;
  }

  // As much as fits: the beginning, or both ends, which tell a command from others.
  shorten(words, width, ends) {
    const key = `${this.paint.font}|${Math.round(width)}|${words}`;
    if (!this.shortened.has(key)) {
      let shown = words;
      if (this.paint.measureText(words).width > width) {
        const letters = Array.from(words);
        const keep = (count) => {
          const last = ends ? count >> 1 : 0;
          const first = letters.slice(0, count - last).join("").trimEnd();
          return `${first}…${last ? letters.slice(-last).join("").trimStart() : ""}`;
        };
        const kept = firstPlace(letters.length, (count) => this.paint.measureText(keep(count + 1)).width > width);
        shown = kept ? keep(kept) : "";
      }
      this.shortened.set(key, shown);
    }
    return this.shortened.get(key);
  }

  drawTitle(row) {
    const { paint, colour } = this;
    const y = row.top + 23;
    paint.fillStyle = colour.line;
    paint.fillRect(0, row.top, this.width, row.top ? 1 : 0);
    const name = this.text(row.group.name, 16, y, { size: 15, weight: 650, width: this.gutter - 32 });
    if (name + 90 < this.gutter) {
      this.text(row.group.about, 16 + name + 10, y + 1, { colour: colour.muted, width: this.gutter - name - 36 });
    }
    this.text(row.group.facts, this.gutter + 8, y + 1, { colour: colour.muted, width: this.width - this.gutter - 16 });
  }

  drawLaneName(row) {
    const { colour } = this;
    const { lane } = row;
    const y = row.top + row.height / 2;
    if (this.focus.lane === lane) {
      this.paint.fillStyle = colour.faint;
      this.paint.fillRect(0, row.top, this.width, row.height);
    }
    if (!lane.title) return;
    const dim = this.focus.bar && !this.focus.lanes.has(lane) ? 0.45 : 1;
    this.paint.globalAlpha = dim;
    const room = this.gutter - 16 - (lane.group.mostCaused && this.gutter > 200 ? 76 : 12);
    const title = this.text(lane.title, 16, y, { weight: 500, width: room, ends: true });
    if (title + 30 < room) {
      this.text(lane.detail, 16 + title + 8, y, { size: 11, colour: colour.muted, width: room - title - 8 });
    }
    if (lane.caused > 1e3 && this.gutter > 200) this.drawCaused(lane, row, y);
    this.paint.globalAlpha = 1;
  }

  drawCaused(lane, row, y) {
    const share = lane.caused / lane.group.mostCaused;
    const notable = lane.bars.some((bar) => bar.notable);
    const colour = notable ? this.colour.notable : this.colour.muted;
    this.text(duration(lane.caused), this.gutter - 10, y - 2, { size: 11, weight: notable ? 650 : 400, colour, align: "right" });
    this.paint.fillStyle = colour;
    const width = Math.max(1, 52 * share);
    this.paint.fillRect(this.gutter - 10 - width, row.top + row.height - 5, width, 2);
  }

  drawCurveName(row) {
    const { colour } = this;
    const words = row.kind === "used" ? "slots in use" : "waiting at once";
    const curve = row.kind === "used" ? row.group.used : row.group.waiting;
    const peak = Number.isInteger(curve.peak) ? curve.peak : curve.peak.toFixed(1);
    this.text(words, 16, row.top + row.height - 14, { size: 11, colour: colour.muted });
    if (this.gutter < 200) return;
    this.text(`at most ${peak}`, this.gutter - 10, row.top + row.height - 14, { size: 11, colour: colour.muted, align: "right" });
    if (row.kind === "used" && row.group.mostCaused) {
      this.text("waiting caused", this.gutter - 10, row.top + 8, { size: 11, colour: colour.muted, align: "right" });
    }
  }

  // ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

  ticks() {
    const span = this.view.to - this.view.from;
    const room = Math.max(2, Math.floor((this.width - this.gutter) / 96));
    const step = TICKS.find((width) => span / width <= room) || TICKS[TICKS.length - 1];
    const zone = new Date((this.timeline.origin + this.view.from) / 1e3).getTimezoneOffset() * 60e6;
    const shift = this.timeline.origin - zone;
    const first = Math.ceil((this.view.from + shift) / step) * step - shift;
    const moments = [];
    for (let moment = first; moment <= this.view.to; moment += step) moments.push(moment);
    return { step, moments };
  }

  drawAxis() {
    const paint = this.axis.getContext("2d");
    this.paint = paint;
    paint.fillStyle = this.colour.panel;
    paint.fillRect(0, 0, this.width, AXIS_HEIGHT);
    const { step, moments } = this.ticks();
    this.text(this.timeline.day(Math.max(this.view.from, this.timeline.first)), 16, 16, { size: 11, colour: this.colour.muted, width: this.gutter - 24 });
    for (const moment of moments) {
      const x = this.x(moment);
      paint.fillStyle = this.colour.line;
      paint.fillRect(Math.round(x), AXIS_HEIGHT - 7, 1, 7);
      if (this.timeline.endsNow && Math.abs(x + 24 - this.x(this.timeline.until)) < 52) continue;
      const label = step >= 86400e6 ? this.timeline.day(moment) : this.timeline.clock(moment, step);
      this.text(label, Math.round(x) + 4, 14, { size: 11, colour: this.colour.muted });
    }
    const now = Math.round(this.x(this.timeline.until));
    if (this.timeline.endsNow && now > this.gutter + 24 && now < this.width + 24) {
      this.text("now", Math.min(now, this.width - 4), 14, { size: 11, weight: 600, colour: this.colour.muted, align: now > this.width - 16 ? "right" : "center" });
    }
    if (this.focus.selecting) {
      const [from, to] = this.focus.selecting;
      paint.globalAlpha = 0.25;
      paint.fillStyle = this.colour.accent;
      paint.fillRect(from, 0, to - from, AXIS_HEIGHT);
      paint.globalAlpha = 1;
    }
    paint.fillStyle = this.colour.line;
    paint.fillRect(0, AXIS_HEIGHT - 1, this.width, 1);
  }

  drawGrid(paint) {
    paint.fillStyle = this.colour.faint;
    for (const moment of this.ticks().moments) paint.fillRect(Math.round(this.x(moment)), 0, 1, this.height);
    paint.fillStyle = this.colour.line;
    paint.fillRect(this.gutter - 1, 0, 1, this.height);
    if (this.focus.selecting) {
      const [from, to] = this.focus.selecting;
      paint.globalAlpha = 0.1;
      paint.fillStyle = this.colour.accent;
      paint.fillRect(from, 0, to - from, this.height);
      paint.globalAlpha = 1;
    }
  }

  drawNow(paint) {
    const x = Math.round(this.x(this.timeline.until));
    if (!this.timeline.endsNow || x < this.gutter || x > this.width) return;
    paint.fillStyle = this.colour.muted;
    for (let y = 0; y < this.height; y += 6) paint.fillRect(x, y, 1, 3);
  }

  // ── bars ─────────────────────────────────────────────────────────────────────────────────────────────────────

  drawLane(row) {
    const { bars } = row.lane;
    const { from, to } = this.view;
    const top = row.top + 3;
    const height = row.height - 6;
    let painted = -Infinity;
    for (let index = firstPlace(bars.length, (place) => bars[place].end >= from); index < bars.length; index += 1) {
      const bar = bars[index];
      if (bar.begin > to) break;
      const end = this.x(bar.end);
      const related = !this.focus.bar || this.focus.related.has(bar);
      // Of what falls on one pixel, a single bar is drawn; thousands a pixel would cost time and show nothing.
      if (end - painted < 0.6 && !(this.focus.bar && related) && bar.ending !== "killed") continue;
      this.paint.globalAlpha = related ? 1 : 0.22;
      this.drawBar(bar, top, height, end);
      painted = end;
      this.drawn += 1;
    }
    this.paint.globalAlpha = 1;
  }

  drawBar(bar, top, height, end) {
    const { paint, colour } = this;
    const begin = this.x(bar.begin);
    const admitted = this.x(bar.admitted);
    if (admitted - begin > 0.3) {
      const width = Math.max(admitted - begin, 1);
      paint.fillStyle = colour.waiting;
      paint.fillRect(begin, top + 3, width, height - 6);
      paint.fillStyle = colour["waiting-edge"];
      paint.fillRect(begin, top + height - 5, width, 2);
      this.label(duration(bar.admitted - bar.begin), begin, admitted, top + height / 2 - 0.5, colour["waiting-text"]);
    }
    if (bar.ending === "waiting") return this.drawArrow(admitted, top + height / 2, colour["waiting-edge"]);
    const fill = bar.notable ? colour.notable : colour.holding;
    if (bar.ending === "instant") return this.drawInstant(admitted, top, height, fill);
    if (bar.ending === "unseen") return this.drawUnseen(admitted, top, height, fill);
    paint.fillStyle = fill;
    const width = Math.max(end - admitted, 1.5);
    if (width < 5) paint.fillRect(admitted, top, width, height);
    else {
      paint.beginPath();
      paint.roundRect(admitted, top, width, height, 3);
      paint.fill();
    }
    const words = `${duration(bar.end - bar.admitted)}${bar.slots > 1 ? ` ×${bar.slots}` : ""}`;
    const right = bar.ending === "killed" ? end - 14 : end;
    this.label(words, admitted, right, top + height / 2, bar.notable ? colour["notable-text"] : colour["holding-text"]);
    if (bar.ending === "killed") this.drawKilled(admitted, end, top, height);
    if (bar.ending === "held") this.drawArrow(end, top + height / 2, fill);
    if (bar === this.focus.bar) this.drawFrame(begin, end, top, height);
    return undefined;
  }

  label(words, from, to, y, colour) {
    // What is partly out of view keeps its words in view.
    const left = Math.max(from, this.gutter);
    const right = Math.min(to, this.width);
    if (right - left < 34) return;
    this.paint.font = `500 11px ${FONT}`;
    if (this.paint.measureText(words).width + 10 > right - left) return;
    this.paint.fillStyle = colour;
    this.paint.textAlign = "center";
    this.paint.textBaseline = "middle";
    this.paint.fillText(words, (left + right) / 2, y + 0.5);
  }

  drawFrame(begin, end, top, height) {
    this.paint.strokeStyle = this.colour.text;
    this.paint.lineWidth = 1.5;
    this.paint.strokeRect(begin - 1.5, top - 1.5, Math.max(end - begin, 2) + 3, height + 3);
  }

  drawInstant(x, top, height, fill) {
    const { paint } = this;
    const middle = top + height / 2;
    paint.fillStyle = fill;
    paint.beginPath();
    paint.moveTo(x, middle - 6);
    paint.lineTo(x + 5, middle);
    paint.lineTo(x, middle + 6);
    paint.lineTo(x - 5, middle);
    paint.fill();
  }

  drawUnseen(x, top, height, fill) {
    const { paint, colour } = this;
    const fade = paint.createLinearGradient(x, 0, x + 26, 0);
    fade.addColorStop(0, fill);
    fade.addColorStop(1, "transparent");
    paint.fillStyle = fade;
    paint.fillRect(x, top, 26, height);
    this.text("?", x + 28, top + height / 2, { size: 11, colour: colour.muted });
  }

  drawKilled(admitted, end, top, height) {
    const { paint, colour } = this;
    paint.fillStyle = colour.killed;
    const width = Math.min(15, Math.max(end - admitted, 3));
    paint.fillRect(end - width, top, width, height);
    if (width < 12) return;
    paint.strokeStyle = colour.surface;
    paint.lineWidth = 1.8;
    const middle = top + height / 2;
    const centre = end - width / 2;
    paint.beginPath();
    for (const tilt of [-1, 1]) {
      paint.moveTo(centre - 3.5, middle - 3.5 * tilt);
      paint.lineTo(centre + 3.5, middle + 3.5 * tilt);
    }
    paint.stroke();
  }

  drawArrow(x, middle, fill) {
    const { paint } = this;
    paint.fillStyle = fill;
    paint.beginPath();
    paint.moveTo(x + 1, middle - 6);
    paint.lineTo(x + 8, middle);
    paint.lineTo(x + 1, middle + 6);
    paint.fill();
  }

  // From the release that let a request in, to the moment at which it was admitted.
  drawConnection({ bar, releaser }) {
    if (!releaser) return;
    const { paint, colour } = this;
    const from = this.rows[releaser.lane.row];
    const to = this.rows[bar.lane.row];
    const x = this.x(bar.admitted);
    if (x < this.gutter || from === to) return;
    const down = from.top < to.top;
    paint.strokeStyle = colour.text;
    paint.lineWidth = 1.5;
    paint.beginPath();
    paint.moveTo(x, down ? from.top + from.height - 3 : from.top + 3);
    paint.lineTo(x, down ? to.top + 3 : to.top + to.height - 3);
    paint.stroke();
  }

  // ── curves ───────────────────────────────────────────────────────────────────────────────────────────────────

  drawCurve(row, curve, fill, limit) {
    const { paint, colour } = this;
    const most = Math.max(curve.peak, limit || 0, 1);
    const bottom = row.top + row.height - 6;
    const tall = row.height - 14;
    const y = (figure) => bottom - figure / most * tall;
    const area = new Path2D();
    this.traceCurve(area, curve, y, bottom);
    paint.globalAlpha = 0.28;
    paint.fillStyle = fill;
    paint.fill(area);
    paint.globalAlpha = 1;
    paint.strokeStyle = fill;
    paint.lineWidth = 1.25;
    paint.stroke(area);
    paint.fillStyle = colour.line;
    paint.fillRect(this.gutter, bottom, this.width - this.gutter, 1);
    if (limit === null) return;
    paint.strokeStyle = colour.limit;
    paint.lineWidth = 1.5;
    paint.setLineDash([5, 4]);
    paint.beginPath();
    paint.moveTo(this.gutter, Math.round(y(limit)) + 0.5);
    paint.lineTo(this.width, Math.round(y(limit)) + 0.5);
    paint.stroke();
    paint.setLineDash([]);
    const words = `limit ${limit}`;
    paint.font = `600 11px ${FONT}`;
    const width = paint.measureText(words).width + 10;
    paint.fillStyle = colour.surface;
    paint.fillRect(this.width - width - 8, y(limit) - 7, width + 8, 15);
    this.text(words, this.width - 13, y(limit) + 0.5, { size: 11, weight: 600, colour: colour.limit, align: "right" });
  }

  // One point a pixel, the highest of those that fall on it.
  traceCurve(area, { stepped, moments, figures }, y, bottom) {
    const { from, to } = this.view;
    let index = Math.max(firstPlace(moments.length, (place) => moments[place] > from) - 1, 0);
    let level = 0;
    let last = -Infinity;
    area.moveTo(this.gutter - 2, bottom);
    while (index < moments.length && (index === 0 || moments[index - 1] <= to)) {
      const x = Math.max(this.x(moments[index]), this.gutter - 2);
      let highest = figures[index];
      let final = figures[index];
      if (stepped) {
        while (index + 1 < moments.length && this.x(moments[index + 1]) - x < 0.7) {
          index += 1;
          highest = Math.max(highest, figures[index]);
          final = figures[index];
        }
        area.lineTo(x, y(level));
        area.lineTo(x, y(highest));
        if (highest !== final) area.lineTo(x + 0.7, y(highest));
        if (highest !== final) area.lineTo(x + 0.7, y(final));
      } else {
        area.lineTo(x, y(final));
      }
      level = final;
      last = x;
      index += 1;
    }
    const end = stepped ? Math.min(this.width + 2, Math.max(last, this.x(this.timeline.until))) : last;
    area.lineTo(end, stepped ? y(level) : bottom);
    area.lineTo(end, bottom);
  }
}
