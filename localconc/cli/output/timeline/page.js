"use strict";

// What a person does with it: zoom, pan, look at a bar, go from bar to bar.

class Page {
  constructor() {
    const find = (id) => document.getElementById(id);
    this.chart = find("chart");
    this.axis = find("axis");
    this.lanes = find("lanes");
    this.scroller = find("scroller");
    this.tip = find("tip");
    this.timeline = new Timeline(find("data").textContent);
    this.drawing = new Drawing(this.timeline, this.axis, this.lanes);
    this.byWait = this.timeline.bars.filter((bar) => bar.admitted - bar.begin > 1e3)
      .sort((one, other) => (other.admitted - other.begin) - (one.admitted - one.begin));
    this.nextWait = 0;
    find("longest").disabled = !this.byWait.length;
    this.hovered = null;
    this.selected = null;
    this.focused = undefined;
    this.selecting = null;
    find("spacer").style.height = `${this.drawing.height}px`;
    find("window").textContent = this.windowText();
    this.chart.dataset.bars = this.timeline.bars.length;
    this.fit();
    this.listen(find);
    new ResizeObserver(() => this.resize()).observe(this.scroller);
    this.resize();
  }

  windowText() {
    const { since, until, bars, groups } = this.timeline;
    const limits = `${groups.length} ${groups.length === 1 ? "limit" : "limits"}`;
    const requests = `${bars.length.toLocaleString("en")} ${bars.length === 1 ? "request" : "requests"}`;
    const end = this.timeline.day(since) === this.timeline.day(until) ? "" : `${this.timeline.day(until)} `;
    return `${this.timeline.day(since)} ${this.timeline.clock(since, 1e6)} to ${end}${this.timeline.clock(until, 1e6)}`
      + ` · ${duration(until - since)} · ${requests} · ${limits}`;
  }

  // ── view ─────────────────────────────────────────────────────────────────────────────────────────────────────

  fit() {
    const { since, until } = this.timeline;
    const margin = Math.max(until - since, 1e3) * 0.015;
    this.show(since - margin, until + margin);
  }

  show(from, to) {
    const { first, until } = this.timeline;
    const whole = Math.max(until - first, 1e3) * 1.1;
    const span = Math.min(Math.max(to - from, 200), whole);
    const centre = Math.min(Math.max((from + to) / 2, first), until);
    const kept = from < first - whole || to > until + whole ? centre - span / 2 : from;
    const begin = Math.min(Math.max(kept, first - span * 0.9), until - span * 0.1);
    this.view = { from: begin, to: begin + span };
    this.redraw();
  }

  zoom(factor, at = (this.view.from + this.view.to) / 2) {
    const { from, to } = this.view;
    this.show(at - (at - from) * factor, at + (to - at) * factor);
  }

  pan(part) {
    const step = (this.view.to - this.view.from) * part;
    this.show(this.view.from + step, this.view.to + step);
  }

  resize() {
    this.drawing.resize(this.scroller.clientWidth, this.scroller.clientHeight);
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.drawNow();
    });
  }

  drawNow() {
    if (!this.drawing.width) return;
    const begin = performance.now();
    this.drawing.draw(this.view, this.scroller.scrollTop, this.focus());
    this.placeTip();
    Object.assign(this.chart.dataset, {
      from: Math.round(this.view.from), to: Math.round(this.view.to), drawn: this.drawing.drawn,
      milliseconds: (performance.now() - begin).toFixed(1),
    });
  }

  // The bar that is looked at, with those that it waited for and those that waited for it.
  focus() {
    const bar = this.hovered || this.selected;
    if (this.focused !== bar) {
      this.focused = bar;
      this.blockers = bar ? this.timeline.blockers(bar) : [];
      this.releaser = bar && this.timeline.releaser(bar, this.blockers);
      this.victims = bar ? this.timeline.victims(bar) : [];
      this.related = new Set(bar ? [bar, ...this.blockers, ...this.victims] : []);
      this.relatedLanes = new Set([...this.related].map((one) => one.lane));
    }
    return {
      bar, related: this.related, lane: bar && bar.lane, lanes: this.relatedLanes,
      releaser: this.releaser, selecting: this.selecting,
    };
  }

  // ── bars ─────────────────────────────────────────────────────────────────────────────────────────────────────

  barAt(x, y) {
    const { drawing } = this;
    const place = firstPlace(drawing.rows.length, (index) => drawing.rows[index].top + drawing.rows[index].height > y);
    const row = drawing.rows[place];
    if (!row || row.kind !== "lane" || x < drawing.gutter) return null;
    const slack = (this.view.to - this.view.from) / (drawing.width - drawing.gutter) * 4;
    const moment = drawing.moment(x);
    const { bars } = row.lane;
    const near = firstPlace(bars.length, (index) => bars[index].end >= moment - slack);
    return near < bars.length && bars[near].begin <= moment + slack ? this.closest(bars, near, moment, slack) : null;
  }

  closest(bars, place, moment, slack) {
    let best = bars[place];
    const distance = (bar) => Math.max(bar.begin - moment, moment - bar.end, 0);
    for (let index = place; index < bars.length && bars[index].begin <= moment + slack; index += 1) {
      if (distance(bars[index]) < distance(best)) best = bars[index];
      if (distance(best) === 0) break;
    }
    return best;
  }

  select(bar) {
    this.selected = bar;
    this.hovered = null;
    if (bar) this.reveal(bar);
    this.redraw();
  }

  reveal(bar) {
    const row = this.drawing.rows[bar.lane.row];
    const { scrollTop, clientHeight } = this.scroller;
    // The lanes beside it have to do with it, most likely.
    const beside = Math.min(4 * ROW.lane, clientHeight / 3);
    if (row.top < scrollTop + beside || row.top + row.height > scrollTop + clientHeight - beside) {
      this.scroller.scrollTop = Math.max(0, row.top - clientHeight / 2);
    }
    const { from, to } = this.view;
    if (bar.end < from || bar.begin > to) this.show(bar.begin - (to - from) / 3, bar.begin + (to - from) * 2 / 3);
  }

  goTo(bar) {
    const span = Math.max(bar.end - bar.begin, 1e3);
    this.show(bar.begin - span * 0.4, bar.end + span * 0.6);
    this.select(bar);
  }

  goToLongestWait() {
    if (!this.byWait.length) return;
    this.goTo(this.byWait[this.nextWait % this.byWait.length]);
    this.nextWait += 1;
  }

  step(direction) {
    const { bars } = this.timeline;
    if (!this.selected) {
      const visible = bars.find((bar) => bar.end >= this.view.from && bar.begin <= this.view.to);
      return this.select(visible || bars[0]);
    }
    const own = this.selected.lane.bars;
    return this.select(own[own.indexOf(this.selected) + direction] || this.selected);
  }

  stepLane(direction) {
    const { lane, begin } = this.selected;
    const lanes = this.timeline.groups.flatMap((group) => group.lanes);
    const next = lanes[lanes.indexOf(lane) + direction];
    if (!next) return;
    const place = firstPlace(next.bars.length, (index) => next.bars[index].end >= begin);
    this.select(next.bars[Math.min(place, next.bars.length - 1)]);
  }

  // ── words ────────────────────────────────────────────────────────────────────────────────────────────────────

  placeTip() {
    const bar = this.focused;
    this.tip.hidden = !bar;
    this.chart.dataset.selected = this.selected ? this.selected.lane.title : "";
    if (!bar) return;
    if (this.told !== bar) {
      this.told = bar;
      this.tip.replaceChildren(...this.tell(bar));
    }
    const { left, top } = this.hovered && this.pointer ? this.besidePointer(bar) : this.inCorner(bar);
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${top}px`;
  }

  besidePointer(bar) {
    const lane = this.drawing.rows[bar.lane.row];
    const y = AXIS_HEIGHT + lane.top - this.scroller.scrollTop;
    const below = y + lane.height + 8;
    const above = y - this.tip.offsetHeight - 8;
    const top = below + this.tip.offsetHeight < this.chart.clientHeight || above < 0 ? below : above;
    const most = this.scroller.clientWidth - this.tip.offsetWidth - 8;
    return { left: Math.max(8, Math.min(this.pointer.x + 14, most)), top };
  }

  // What is selected stays in view, with the bars that it has to do with.
  inCorner(bar) {
    const y = this.drawing.rows[bar.lane.row].top - this.scroller.scrollTop;
    const low = this.chart.clientHeight - this.tip.offsetHeight - 12;
    return {
      left: Math.max(8, this.scroller.clientWidth - this.tip.offsetWidth - 12),
      top: y < this.scroller.clientHeight / 2 ? low : AXIS_HEIGHT + 12,
    };
  }

  tell(bar) {
    const { caller } = bar;
    const line = (className, ...words) => {
      const paragraph = document.createElement("p");
      paragraph.className = className;
      paragraph.append(...words);
      return paragraph;
    };
    const name = (text) => {
      const isolated = document.createElement("bdi");
      isolated.textContent = text;
      return isolated;
    };
    const lines = [line("name", name(this.titleOf(caller)))];
    lines.push(line("", ...this.waitWords(bar, name)), line("", this.holdWords(bar)));
    if (bar.caused > 1e3) lines.push(line("strong", ...this.causedWords(bar, name)));
    lines.push(line("small", `${this.timeline.clock(bar.begin)} asked`
      + (bar.ending === "waiting" ? "" : ` · ${this.timeline.clock(bar.admitted)} admitted`)
      + (bar.end > bar.admitted && bar.ending !== "held" ? ` · ${this.timeline.clock(bar.end)} ${bar.ending}` : "")));
    lines.push(line("small", `pid ${caller.pid} · `, name(caller.thread), " · ", name(caller.command)));
    return lines;
  }

  waitWords(bar, name) {
    const waited = bar.admitted - bar.begin;
    if (waited < 1e3) return ["did not wait"];
    const words = [`${bar.ending === "waiting" ? "has waited" : "waited"} ${duration(waited)}`];
    const holders = this.distinct(this.blockers, bar);
    if (holders.length) words.push(" behind ", ...this.list(holders, name));
    return words;
  }

  holdWords(bar) {
    const slots = `${bar.slots} ${bar.slots === 1 ? "slot" : "slots"}`;
    const numbered = bar.numbers.length ? ` (number ${bar.numbers.join(", ")})` : "";
    const held = duration(bar.end - bar.admitted);
    return {
      released: `held ${slots}${numbered} for ${held}`,
      held: `has held ${slots}${numbered} for ${held} so far`,
      killed: `held ${slots}${numbered} for ${held}, then the process was killed`,
      unseen: `held ${slots}${numbered}; no process saw the end`,
      instant: `took ${slots} of a rate limit`,
      waiting: `asks for ${slots}`,
    }[bar.ending];
  }

  causedWords(bar, name) {
    const words = [`caused ${duration(bar.caused)} of waiting`];
    const waiters = this.distinct(this.victims, bar);
    if (waiters.length) words.push(": held up ", ...this.list(waiters, name));
    return words;
  }

  distinct(bars, bar) {
    return [...new Set(bars.filter((other) => other.caller !== bar.caller).map((other) => other.caller))];
  }

  list(callers, name) {
    const words = callers.slice(0, 3).flatMap((caller, index) => [
      index ? ", " : "", name(this.titleOf(caller)), ` (${caller.pid})`,
    ]);
    if (callers.length > 3) words.push(` and ${callers.length - 3} more`);
    return words;
  }

  titleOf(caller) {
    if (caller.label) return caller.label;
    if (caller.thread && caller.thread !== "MainThread") return caller.thread;
    if (!this.titles) {
      this.titles = new Map();
      for (const bar of this.timeline.bars) {
        if (bar.lane.title && !this.titles.has(bar.caller)) this.titles.set(bar.caller, bar.lane.title);
      }
    }
    return this.titles.get(caller) || caller.command || `pid ${caller.pid}`;
  }

  // ── hands ────────────────────────────────────────────────────────────────────────────────────────────────────

  listen(find) {
    const press = {
      longest: () => this.goToLongestWait(), in: () => this.zoom(1 / 1.6), out: () => this.zoom(1.6),
      fit: () => this.fit(), theme: () => this.switchTheme(),
    };
    for (const [id, act] of Object.entries(press)) find(id).addEventListener("click", act);
    for (const button of document.querySelectorAll("[data-holdup]")) {
      button.addEventListener("click", () => this.goTo(this.timeline.holdUps[button.dataset.holdup]));
    }
    this.chart.addEventListener("keydown", (event) => this.onKey(event));
    this.scroller.addEventListener("scroll", () => this.redraw());
    this.chart.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.lanes.addEventListener("pointerdown", (event) => this.onDown(event));
    this.lanes.addEventListener("pointermove", (event) => this.onMove(event));
    this.lanes.addEventListener("pointerup", (event) => this.onUp(event));
    this.lanes.addEventListener("pointercancel", () => { this.drag = null; });
    this.lanes.addEventListener("pointerleave", () => this.hover(null));
    this.lanes.addEventListener("dblclick", () => { if (this.selected) this.goTo(this.selected); });
    this.axis.addEventListener("pointerdown", (event) => this.onAxisDown(event));
    this.axis.addEventListener("pointermove", (event) => this.onAxisMove(event));
    this.axis.addEventListener("pointerup", () => this.onAxisUp());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => this.pan(-0.15), ArrowRight: () => this.pan(0.15),
      ArrowUp: () => (this.selected ? this.stepLane(-1) : this.scroller.scrollBy(0, -ROW.lane * 2)),
      ArrowDown: () => (this.selected ? this.stepLane(1) : this.scroller.scrollBy(0, ROW.lane * 2)),
      PageUp: () => this.scroller.scrollBy(0, -this.scroller.clientHeight * 0.8),
      PageDown: () => this.scroller.scrollBy(0, this.scroller.clientHeight * 0.8),
      "+": () => this.zoom(1 / 1.6), "=": () => this.zoom(1 / 1.6), "-": () => this.zoom(1.6),
      0: () => this.fit(), Home: () => this.fit(),
      ",": () => this.step(-1), ".": () => this.step(1),
      Enter: () => this.selected && this.goTo(this.selected), Escape: () => this.select(null),
      w: () => this.goToLongestWait(), t: () => this.switchTheme(),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  onWheel(event) {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.002), this.drawing.moment(Math.max(this.at(event).x, this.drawing.gutter)));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      this.pan(sideways / (this.drawing.width - this.drawing.gutter));
    }
  }

  at(event) {
    const frame = this.lanes.getBoundingClientRect();
    return { x: event.clientX - frame.left, y: event.clientY - frame.top + this.scroller.scrollTop };
  }

  onDown(event) {
    if (event.button !== 0) return;
    this.drag = { ...this.at(event), view: this.view, moved: false };
    this.lanes.setPointerCapture(event.pointerId);
  }

  onMove(event) {
    const place = this.at(event);
    this.pointer = place;
    if (!this.drag) return this.hover(this.barAt(place.x, place.y));
    const moved = place.x - this.drag.x;
    if (Math.abs(moved) < 4 && !this.drag.moved) return undefined;
    this.drag.moved = true;
    this.lanes.classList.add("dragging");
    const { from, to } = this.drag.view;
    const shift = moved / (this.drawing.width - this.drawing.gutter) * (to - from);
    return this.show(from - shift, to - shift);
  }

  onUp(event) {
    const { drag } = this;
    this.drag = null;
    this.lanes.classList.remove("dragging");
    if (!drag || drag.moved) return;
    const place = this.at(event);
    this.select(this.barAt(place.x, place.y));
  }

  hover(bar) {
    this.lanes.classList.toggle("over", Boolean(bar));
    if (bar === this.hovered && !bar) return;
    this.hovered = bar;
    this.redraw();
  }

  onAxisDown(event) {
    const { x } = this.at(event);
    if (event.button !== 0 || x < this.drawing.gutter) return;
    this.axis.setPointerCapture(event.pointerId);
    this.selectFrom = x;
  }

  onAxisMove(event) {
    if (this.selectFrom === undefined) return;
    const x = Math.min(Math.max(this.at(event).x, this.drawing.gutter), this.drawing.width);
    this.selecting = [Math.min(x, this.selectFrom), Math.max(x, this.selectFrom)];
    this.redraw();
  }

  onAxisUp() {
    const chosen = this.selecting;
    this.selecting = null;
    this.selectFrom = undefined;
    if (chosen && chosen[1] - chosen[0] > 4) this.show(this.drawing.moment(chosen[0]), this.drawing.moment(chosen[1]));
    else this.redraw();
  }

  switchTheme() {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    this.recolour();
  }

  recolour() {
    this.drawing.readColours();
    this.redraw();
  }
}

new Page();
