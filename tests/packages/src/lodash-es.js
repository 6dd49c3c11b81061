// Lists and objects, taken apart and put together.

import { chunk, cloneDeep, debounce, get, groupBy, isEqual, kebabCase, mapValues, merge, orderBy, set, sumBy, template, uniqBy } from "lodash-es";

export function work({ rows, name }) {
  const copy = cloneDeep(rows);
  set(copy, "[0].deep.path[2]", name);
  return {
    sums: mapValues(groupBy(rows, "kind"), (group) => sumBy(group, "price")),
    first: orderBy(uniqBy(rows, "kind"), ["price"], ["desc"]).map((row) => row.kind),
    chunks: chunk(rows.map((row) => row.price), 2),
    deep: get(copy, "0.deep.path.2"),
    same: isEqual(rows, copy),
    merged: merge({}, ...rows),
    slug: kebabCase(name),
    text: template("<% rows.forEach(({ kind }) => { %>[<%- kind %>]<% }) %>")({ rows }),
    debounced: typeof debounce(() => {}, 5),
  };
}

export default async ({ after }) => ({ made: await work(after.given) });
