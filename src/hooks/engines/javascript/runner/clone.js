// structuredClone, for what a hook can hold: plain data, dates, maps, sets, buffers, errors, cycles.

function structuredClone(value) {
  return cloneOf(value, new NativeMap());
}

function cloneOf(value, seen) {
  if (typeof value === "function" || typeof value === "symbol") {
    throw new DOMException(`${inspect(value)} cannot be cloned`, "DataCloneError");
  }
  if (typeof value !== "object" || value === null) return value;
  if (seen.has(value)) return seen.get(value);
  const keep = (copy) => (seen.set(value, copy), copy);
  if (isArray(value)) {
    const copy = keep(new Array(value.length));
    for (const name of objectKeys(value)) copy[name] = cloneOf(value[name], seen);
    return copy;
  }
  if (value instanceof NativeDate) return keep(new NativeDate(value.getTime()));
  if (value instanceof NativeRegExp) return keep(new NativeRegExp(value.source, value.flags));
  if (value instanceof NativeArrayBuffer) return keep(value.slice(0));
  if (isView(value)) {
    const buffer = cloneOf(value.buffer, seen);
    return keep(new value.constructor(buffer, value.byteOffset, value.length ?? value.byteLength));
  }
  if (value instanceof NativeMap) {
    const copy = keep(new NativeMap());
    for (const [name, item] of value) copy.set(cloneOf(name, seen), cloneOf(item, seen));
    return copy;
  }
  if (value instanceof NativeSet) {
    const copy = keep(new NativeSet());
    for (const item of value) copy.add(cloneOf(item, seen));
    return copy;
  }
  if (isErrorLike(value)) {
    const copy = keep(new NativeError(value.message));
    define(copy, "name", value.name);
    define(copy, "stack", value.stack);
    return copy;
  }
  const copy = keep({});
  for (const name of objectKeys(value)) {
    defineProperty(copy, name, { value: cloneOf(value[name], seen), writable: true, enumerable: true, configurable: true });
  }
  return copy;
}

define(globals, "structuredClone", structuredClone);
