// Values as text, for logs and failures. Never throws: what cannot be read is said to be unreadable.

const TEXT_LENGTH_MAX = 4096;
const INSPECT_DEPTH_MAX = 4;
const INSPECT_ITEMS_MAX = 100;

// Half characters would end the call where the text crosses to the host.
function cut(text) {
  return toWellFormed(text.length > TEXT_LENGTH_MAX ? slice(text, 0, TEXT_LENGTH_MAX) + "…" : text);
}

// A property as text, or undefined if it is absent, no text or throws when it is read.
function readText(value, name) {
  try {
    const text = value[name];
    return typeof text === "string" ? text : undefined;
  } catch {
    return undefined;
  }
}

function isErrorLike(value) {
  try {
    return objectToString(value) === "[object Error]" || value instanceof NativeError;
  } catch {
    return false;
  }
}

function inspect(value) {
  try {
    return cut(inspectAt(value, 0, []));
  } catch {
    return "a value that cannot be read";
  }
}

function inspectAt(value, depth, parents) {
  switch (typeof value) {
    case "string":
      return depth === 0 ? value : stringify(value);
    case "bigint":
      return NativeString(value) + "n";
    case "function":
      return "[function " + (readText(value, "name") || "(anonymous)") + "]";
    case "object":
      return value === null ? "null" : inspectObject(value, depth, parents);
    default:
      return NativeString(value);
  }
}

function inspectObject(value, depth, parents) {
  for (let index = 0; index < parents.length; index++) {
    if (parents[index] === value) return "[circular]";
  }
  if (isErrorLike(value)) {
    const head = (readText(value, "name") ?? "Error") + ": " + (readText(value, "message") ?? "");
    return depth > 0 ? head : head + "\n" + (readText(value, "stack") ?? "");
  }
  if (value instanceof NativeDate) return dateToISOString(value);
  const listed = isArray(value);
  if (depth >= INSPECT_DEPTH_MAX) return listed ? "[…]" : "{…}";
  parents[parents.length] = value;
  const names = objectKeys(value);
  let text = "";
  for (let index = 0; index < names.length; index++) {
    if (index > 0) text += ", ";
    if (index === INSPECT_ITEMS_MAX) {
      text += "… " + (names.length - index) + " more";
      break;
    }
    const name = names[index];
    if (!listed) text += stringify(name) + ": ";
    text += inspectAt(value[name], depth + 1, parents);
    if (text.length > TEXT_LENGTH_MAX) break;
  }
  parents.length--;
  return listed ? "[" + text + "]" : "{" + text + "}";
}

// What was thrown, for the report. `thrown` says that it was no Error.
function describe(error) {
  if (error !== null && typeof error === "object" && (isErrorLike(error) || readText(error, "message") !== undefined)) {
    return {
      name: cut(readText(error, "name") ?? "Error"),
      message: cut(readText(error, "message") ?? ""),
      stack: cut(readText(error, "stack") ?? ""),
    };
  }
  return { thrown: inspect(error) };
}
