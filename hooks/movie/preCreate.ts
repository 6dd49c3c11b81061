// Before a film is stored: an ISO date, nothing from the future, a slug, and the id of its director.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

interface Film {
  Title: string;
  "Release Date": string;
  Director?: string | null;
  [property: string]: unknown;
}

export function preCreate({ after, time }: { after: Film; time: string }) {
  const date = isoDate(after["Release Date"]);
  if (date === null) {
    throw new Reject("the release date is not a date", {
      "/Release Date": `expected such as \`Jun 12 1998\` or \`1998-06-12\`, found \`${after["Release Date"]}\``,
    });
  }
  // Both are UTC days as text, so they compare as text. The day of the change counts, not that of a later reading.
  if (date > time.slice(0, 10)) {
    throw new Reject("a film from the future", { "/Release Date": `${date} is after ${time.slice(0, 10)}` });
  }
  const amended: Film = { ...after, "Release Date": date, slug: slug(after.Title) };
  // A client does not choose these two.
  delete amended.director_id;
  if (after.Director && slug(after.Director) !== "") {
    amended.director_id = slug(after.Director).slice(0, 128);
  }
  return amended;
}

/** `Jun 12 1998` or `1998-06-12` as `1998-06-12`; null if there is no such day. */
function isoDate(text: string): string | null {
  const words = /^([A-Z][a-z]{2}) (\d{2}) (\d{4})$/.exec(text);
  const digits = /^(\d{4})-(\d{2})-(\d{2})$/.exec(text);
  let year: string, month: string, day: string;
  if (words) {
    [, , day, year] = words;
    month = String(MONTHS.indexOf(words[1]) + 1).padStart(2, "0");
  } else if (digits) {
    [, year, month, day] = digits;
  } else {
    return null;
  }
  const inMonth = [31, isLeap(Number(year)) ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
  const isDay = Number(day) >= 1 && Number(day) <= (inMonth[Number(month) - 1] ?? 0);
  return isDay ? `${year}-${month}-${day}` : null;
}

function isLeap(year: number): boolean {
  return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
}

/** Lowercase ASCII letters and digits; a letter beyond ASCII becomes its code, so that different names stay different. */
function slug(text: string): string {
  let result = "";
  for (const letter of text.toLowerCase()) {
    if (/[a-z0-9]/.test(letter)) {
      result += letter;
    } else if (letter.codePointAt(0)! > 127) {
      result += "u" + letter.codePointAt(0)!.toString(16);
    } else if (result !== "" && !result.endsWith("-")) {
      result += "-";
    }
  }
  return result.replace(/-$/, "");
}
