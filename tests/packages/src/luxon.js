// Dates again, of a package that asks for Intl.

import { DateTime, Duration, Interval, Settings } from "luxon";

// There is no Intl in QuickJS, which Luxon asks for what these say.
Settings.defaultZone = "utc";
Settings.defaultLocale = "en-US";
Settings.defaultNumberingSystem = "latn";
Settings.defaultWeekSettings = { firstDay: 1, minimalDays: 4, weekend: [6, 7] };

export function work({ from, to, days }) {
  const [start, end] = [from, to].map((text) => DateTime.fromISO(text, { zone: "utc" }));
  return {
    due: start.plus({ days, hours: 3 }).toISO(),
    week: `${end.weekYear}-${end.weekNumber}`,
    hours: Interval.fromDateTimes(start, end).length("hours"),
    floor: start.startOf("quarter").toISODate(),
    duration: Duration.fromISO("P1DT2H").plus({ minutes: 90 }).shiftTo("hours", "minutes").toObject(),
    text: start.toFormat("yyyy-LL-dd'T'HH:mm"),
    valid: DateTime.fromISO("2026-02-30").isValid,
  };
}

export default async ({ after }) => ({ made: await work(after.given) });
