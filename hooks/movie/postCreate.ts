// After a film was stored: its director's number of films and mean rating.
//
// It counts anew instead of adding one, so it may run twice. Films of one director may be handled at the same moment:
// the director is read before its films are counted and written only if it is still as it was read, so what the last
// writer leaves was counted after everything that the others wrote.

const ATTEMPTS = 20;

export async function postCreate({ after, read, write }) {
  const id = after.director_id;
  if (!id) return;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = await read.get("director", id);
    const data = await count(read, id);
    if (data === null || (before && same(before.data, data))) return;
    try {
      if (before) await write.update("director", id, data, { expected: before.position });
      else await write.create("director", data, { id });
      return;
    } catch (error) {
      // Someone else was faster: read and count again.
      if (!["conflict", "exists", "not-found"].includes(error.code)) throw error;
    }
  }
  throw new Error(`director ${id} changed ${ATTEMPTS} times in a row`);
}

/** What the instance of a director should hold; null if there is no film of that director any more. */
async function count(read, id: string) {
  let films = 0;
  let rated = 0;
  // In whole hundredths, so that the sum is exact.
  let sum = 0;
  let name: string | null = null;
  let cursor: string | undefined;
  do {
    const page = await read.query("movie", { filter: { director_id: { eq: id } }, limit: 1000, cursor });
    for (const { data } of page.items) {
      films += 1;
      // Spellings may differ; which one is shown must not depend on the order of the films.
      if (name === null || data.Director < name) name = data.Director;
      const rating = data["IMDB Rating"];
      if (typeof rating === "number") {
        rated += 1;
        sum += Math.round(rating * 100);
      }
    }
    cursor = page.next ?? undefined;
  } while (cursor !== undefined);
  if (films === 0) return null;
  const mean_rating = rated === 0 ? null : Math.floor((2 * sum + rated) / (2 * rated)) / 100;
  return { name, films, rated, mean_rating };
}

function same(a, b): boolean {
  return ["name", "films", "rated", "mean_rating"].every((key) => a[key] === b[key]);
}
