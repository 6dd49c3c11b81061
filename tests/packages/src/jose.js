// Tokens, without keys.

import { base64url, calculateJwkThumbprint, decodeJwt, decodeProtectedHeader, UnsecuredJWT } from "jose";

export async function work({ token, jwk, claims }) {
  const unsecured = new UnsecuredJWT(claims).setIssuer("shop").setIssuedAt(1700000000).encode();
  let fault;
  try {
    decodeJwt("not.a.token");
  } catch (error) {
    fault = error.code ?? error.name;
  }
  return {
    header: decodeProtectedHeader(token),
    claims: decodeJwt(token),
    unsecured,
    read: UnsecuredJWT.decode(unsecured, { issuer: "shop" }).payload,
    thumbprint: await calculateJwkThumbprint(jwk),
    bytes: base64url.encode(new Uint8Array([255, 0, 254, 1])),
    fault,
  };
}

export default async ({ after }) => ({ made: await work(after.given) });
