// A provider of the npm package oidc-provider that signs in, without asking, whoever /as/NAME named last, and takes
// another key at /rotate. Says on its first line where it listens.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

const { default: Provider } = await import('oidc-provider');

let account = 'nobody';
let turn = 0;
let provider;
let answer;

function open(issuer) {
  const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
  turn += 1;
  const redirect_uris = ['real', 'public'].map((name) => `https://console.example.in/console/oidc/${name}/callback`);
  const common = { redirect_uris, response_types: ['code'], grant_types: ['authorization_code'] };
  provider = new Provider(issuer, {
    clients: [
      { ...common, client_id: 'muneem', client_secret: 'a secret & more', token_endpoint_auth_method: 'client_secret_basic' },
      { ...common, client_id: 'muneem-public', token_endpoint_auth_method: 'none' },
    ],
    jwks: { keys: [{ ...key, kid: `key-${turn}`, use: 'sig', alg: 'RS256' }] },
    cookies: { keys: ['only for tests'] },
    pkce: { required: () => true },
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: 'asha@example.in', email_verified: true }),
    }),
  });
  answer = provider.callback();
}

async function interact(req, res) {
  const { prompt, session, params } = await provider.interactionDetails(req, res);
  if (prompt.name === 'login') {
    const login = { accountId: account, remember: false, amr: ['pwd'] };
    return provider.interactionFinished(req, res, { login }, { mergeWithLastSubmission: false });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope('openid');
  const consent = { grantId: await grant.save() };
  return provider.interactionFinished(req, res, { consent }, { mergeWithLastSubmission: true });
}

const server = createServer((req, res) => {
  const path = new URL(req.url, 'http://localhost').pathname;
  if (path.startsWith('/as/')) {
    account = path.slice('/as/'.length);
    return res.end('yes');
  }
  if (path === '/rotate') {
    open(`http://127.0.0.1:${server.address().port}`);
    return res.end('yes');
  }
  if (path.startsWith('/interaction/')) {
    return interact(req, res).catch((error) => {
      res.statusCode = 500;
      res.end(String(error));
    });
  }
  return answer(req, res);
});
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  open(issuer);
  console.log(`LISTENS ${issuer}`);
});
