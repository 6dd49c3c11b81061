
// What QuickJS has and V8 14 does not, where it is cheap: `Math.sumPrecise` and `Iterator.concat`. A later version of V8 has
// its own, which is then used. In a block, because the scripts of the runner have the same names.

{
  const numberBits = new BigUint64Array(1);
  const numberParts = new Float64Array(numberBits.buffer);
  const toBigInt = BigInt;
  const toNumber = Number;
  const isFiniteNumber = Number.isFinite;

  // The smallest number above zero is 2 ** -1074; all finite numbers are multiples of it.
  function exactMultiple(number) {
    numberParts[0] = number;
    const bits = numberBits[0];
    const exponent = (bits >> 52n) & 0x7ffn;
    const fraction = bits & 0xf_ffff_ffff_ffffn;
    const multiple = exponent === 0n ? fraction : (fraction | 0x10_0000_0000_0000n) << (exponent - 1n);
    return bits >> 63n === 0n ? multiple : -multiple;
  }

  // The nearest number, ties to even. Of a long multiple, 64 bits and whether one of the others is set decide it.
  function nearestNumber(multiple) {
    const size = multiple < 0n ? -multiple : multiple;
    let extra = 0n;
    for (let step = 2048n; step > 0n; step >>= 1n) if (size >> (extra + step) >= 1n << 64n) extra += step;
    if (size >> extra >= 1n << 64n) extra += 1n;
    let head = size >> extra;
    if (head << extra !== size) head |= 1n;
    const number = toNumber(head) * 2 ** (toNumber(extra) - 1074);
    return multiple < 0n ? -number : number;
  }

  function addMissing(target, name, length, functions) {
    if (name in target) return;
    setOwn(functions[name], "length", { __proto__: null, value: length, configurable: true });
    setOwn(target, name, { __proto__: null, value: functions[name], writable: true, enumerable: false, configurable: true });
  }

  addMissing(Math, "sumPrecise", 1, {
    sumPrecise(items) {
      let sum = 0n, special = 0, isNegativeZero = true;
      for (const item of items) {
        if (typeof item !== "number") throw new TypeError("Math.sumPrecise adds numbers only");
        if (item !== 0 || 1 / item > 0) isNegativeZero = false;
        if (isFiniteNumber(item)) sum += exactMultiple(item);
        else special += item;
      }
      if (special !== 0) return special;
      return isNegativeZero ? -0 : nearestNumber(sum);
    },
  });

  addMissing(Iterator, "concat", 0, {
    concat(...items) {
      const opened = [];
      for (const item of items) {
        const open = item === null || (typeof item !== "object" && typeof item !== "function") ? undefined : item[Symbol.iterator];
        if (typeof open !== "function") throw new TypeError("Iterator.concat takes iterable objects only");
        opened[opened.length] = { __proto__: null, [Symbol.iterator]: () => reflectApply(open, item, []) };
      }
      return (function* () {
        for (const iterable of opened) yield* iterable;
      })();
    },
  });
}
