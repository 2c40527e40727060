"use strict";

// What the page knows: limits, their lanes and bars. Moments are microseconds from the first one.

const ENDINGS = ["released", "held", "killed", "unseen", "instant", "waiting"];

// By how much a release may seem to come after the admission that it made room for.
const HANDOFF_MICROS = 1000;

class Timeline {
  constructor(text) {
    const data = JSON.parse(text);
    this.origin = data.origin * 1e6;
    this.since = data.since;
    this.until = data.until;
    this.endsNow = data.now;
    this.callers = data.callers.map(([pid, ...texts]) => {
      const [thread, label, command] = texts.map((text) => data.texts[text]);
      return { pid, thread, label, command };
    });
    this.bars = [];
    this.groups = data.groups.map((group) => this.readGroup(group));
    this.holdUps = data.holdUps.map(([group, lane, bar]) => this.groups[group].lanes[lane].bars[bar]);
    this.first = Math.min(this.since, ...this.groups.map((group) => group.first));
  }

  readGroup(data) {
    const group = {
      name: data.name, limit: data.limit, about: data.about, facts: data.facts, bars: [],
      used: readCurve(data.used), waiting: readCurve(data.waiting),
    };
    group.lanes = data.lanes.map(([holder, title, detail, bars]) => {
      const lane = { group, holder, title, detail, caused: 0 };
      lane.bars = bars.map((fields) => this.readBar(fields, lane, data.notable));
      return lane;
    });
    const caused = new Map();
    for (const lane of group.lanes) {
      const own = lane.bars.reduce((sum, bar) => sum + bar.caused, 0);
      caused.set(lane.holder, (caused.get(lane.holder) || 0) + own);
    }
    for (const lane of group.lanes) lane.caused = caused.get(lane.holder);
    group.mostCaused = Math.max(0, ...caused.values());
    group.first = group.bars.reduce((first, bar) => Math.min(first, bar.begin), Infinity);
    return group;
  }

  readBar([caller, begin, waited, held, ending, slots, caused, numbers = []], lane, notable) {
    const bar = {
      lane, caller: this.callers[caller], begin, admitted: begin + waited, end: begin + waited + held,
      ending: ENDINGS[ending], slots, caused, numbers, notable: caused >= notable,
    };
    lane.group.bars.push(bar);
    this.bars.push(bar);
    return bar;
  }

  // The bars that held the limit while this one waited, those that held it longest meanwhile first.
  blockers(bar) {
    if (bar.admitted === bar.begin) return [];
    return bar.lane.group.bars
      .filter((other) => other !== bar && other.end > other.admitted
        && other.admitted < bar.admitted && other.end > bar.begin)
      .sort((one, other) => overlap(bar, other) - overlap(bar, one));
  }

  // Of those, the one whose release let the bar in.
  releaser(bar, blockers) {
    const early = (holder) => bar.admitted - holder.end;
    const over = blockers.filter((holder) => early(holder) >= -HANDOFF_MICROS);
    return over.reduce((last, holder) => (last && early(last) <= early(holder) ? last : holder), null);
  }

  // The bars that waited while this one held the limit.
  victims(bar) {
    if (bar.end === bar.admitted || bar.caused === 0) return [];
    return bar.lane.group.bars
      .filter((other) => other !== bar && other.admitted > other.begin
        && other.begin < bar.end && other.admitted > bar.admitted)
      .sort((one, other) => overlap(other, bar) - overlap(one, bar));
  }

  clock(moment, step = 1e3) {
    const date = new Date((this.origin + moment) / 1e3);
    const two = (number) => String(number).padStart(2, "0");
    const text = `${two(date.getHours())}:${two(date.getMinutes())}`;
    if (step >= 60e6) return text;
    const seconds = `${text}:${two(date.getSeconds())}`;
    if (step >= 1e6) return seconds;
    const micros = String(Math.floor((this.origin + moment) % 1e6)).padStart(6, "0");
    return `${seconds}.${step >= 1e3 ? micros.slice(0, 3) : micros}`;
  }

  day(moment) {
    const date = new Date((this.origin + moment) / 1e3);
    return date.toLocaleDateString(undefined, { weekday: "short", day: "numeric", month: "short", year: "numeric" });
  }
}

function overlap(waiter, holder) {
  return Math.min(waiter.admitted, holder.end) - Math.max(waiter.begin, holder.admitted);
}

function readCurve({ stepped, points }) {
  const moments = new Float64Array(points.length / 2);
  const figures = new Float64Array(points.length / 2);
  let moment = 0;
  let peak = 0;
  for (let index = 0; index < moments.length; index += 1) {
    moment += points[2 * index];
    moments[index] = moment;
    figures[index] = points[2 * index + 1];
    peak = Math.max(peak, figures[index]);
  }
  return { stepped, moments, figures, peak };
}

// The first place in an ordered list at which the test holds.
function firstPlace(length, test) {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

function duration(micros) {
  const seconds = micros / 1e6;
  if (seconds <= 0) return "0s";
  if (seconds < 0.00995) return `${Math.max(seconds * 1e3, 0.1).toFixed(1)}ms`;
  if (seconds < 0.0995) return `${(seconds * 1e3).toFixed(0)}ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)}s`;
  if (seconds < 59.95) return `${seconds.toFixed(1)}s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d${two(Math.floor((whole % 86400) / 3600))}h`;
}
