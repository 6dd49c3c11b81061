// An OpenID Connect issuer (https://github.com/panva/node-oidc-provider) for tests: `node issuer.mjs PORT KEYS`. KEYS is a file
// with its private keys, which is made if it is not there. Ends with its standard input.
//
// A client's name says what its tokens claim: `reader`, `writer` and so on become the claim `role`, and `nobody` gets none. The
// resource `urn:ALG` says how a token is signed.
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [port, file] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

if (!existsSync(file)) {
  const mark = Math.random().toString(36).slice(2);
  const key = (alg, kind, options) => ({
    ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }),
    alg,
    kid: `${alg}-${mark}`,
    use: 'sig',
  });
  const keys = [
    key('RS256', 'rsa', { modulusLength: 2048 }),
    key('PS256', 'rsa', { modulusLength: 2048 }),
    key('ES256', 'ec', { namedCurve: 'P-256' }),
    key('ES384', 'ec', { namedCurve: 'P-384' }),
    key('EdDSA', 'ed25519'),
  ];
  writeFileSync(file, JSON.stringify({ keys }));
}

const algorithms = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'];
const provider = new Provider(issuer, {
  jwks: JSON.parse(readFileSync(file, 'utf8')),
  enabledJWA: { idTokenSigningAlgValues: algorithms },
  clients: ['reader', 'writer', 'admin', 'nobody'].map((name) => ({
    client_id: name,
    client_secret: 'secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })),
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (context, resource) => ({
        scope: '',
        audience: 'snaphook',
        accessTokenFormat: 'jwt',
        accessTokenTTL: 600,
        jwt: { sign: { alg: resource.slice('urn:'.length) } },
      }),
    },
  },
  extraTokenClaims: (context, token) =>
    token.clientId === 'nobody' ? {} : { role: token.clientId, models: ['film', 'audit-*'] },
});
provider.listen(Number(port), '127.0.0.1');
process.stdin.on('end', () => process.exit()).resume();
