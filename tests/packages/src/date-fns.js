// Dates: what lies between two of them.

import { addBusinessDays, differenceInCalendarDays, eachDayOfInterval, endOfMonth, format, getISOWeek, parseISO } from "date-fns";

export function work({ from, to, days }) {
  const [start, end] = [parseISO(from), parseISO(to)];
  return {
    between: differenceInCalendarDays(end, start),
    due: format(addBusinessDays(start, days), "yyyy-MM-dd EEEE"),
    week: getISOWeek(end),
    month: format(endOfMonth(start), "do MMMM yyyy"),
    weekend: eachDayOfInterval({ start, end }).filter((day) => day.getDay() % 6 === 0).map((day) => format(day, "dd.MM.")),
  };
}

export default async ({ after }) => ({ made: await work(after.given) });
