// Lets the official Node libraries check webhooks, as a receiver would.
//
//   node verify.mjs FOLDER    the folder that holds `node_modules`
//
// Reads one JSON object a line: `name`, `signature` (`standard`, `hex` or `ed25519`), the `secret` or
// the `publicKey` that the receiver has, `headers`, `body`, and `expect` (`ok` or `refused`). Prints a
// line for each; ends with 1 if a library sees one differently, and if there was none to see.

import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const installed = createRequire(resolve(process.argv[2], "package.json"));
const { Webhook, WebhookVerificationError } = installed("standardwebhooks");
const Stripe = installed("stripe");
const { dependencies } = installed("./package.json");

// As in the libraries, in seconds.
const TOLERANCE = 300;

// What a receiver would not believe. Any other error is a fault of ours.
class Refused extends Error {}

function checkStandard({ secret, headers, body }) {
    try {
        new Webhook(secret).verify(Buffer.from(body), headers);
    } catch (error) {
        throw error instanceof WebhookVerificationError ? new Refused(error.message) : error;
    }
}

function checkHex({ secret, headers, body }) {
    try {
        Stripe.webhooks.constructEvent(Buffer.from(body), headers["ringback-signature"], secret);
    } catch (error) {
        const refused = error instanceof Stripe.errors.StripeSignatureVerificationError;
        throw refused ? new Refused(error.message) : error;
    }
}

function checkEd25519({ publicKey, headers, body }) {
    const sent = headers["webhook-timestamp"];
    if (Math.abs(Date.now() / 1000 - Number(sent)) > TOLERANCE) {
        throw new Refused("the timestamp is too far off");
    }
    const raw = Buffer.from(publicKey.replace(/^whpk_/, ""), "base64");
    const jwk = { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") };
    const key = createPublicKey({ key: jwk, format: "jwk" });
    const signed = Buffer.from(`${headers["webhook-id"]}.${sent}.${body}`);
    const right = headers["webhook-signature"]
        .split(" ")
        .map((entry) => entry.split(","))
        .filter(([kind]) => kind === "v1a")
        .some(([, signature]) => verify(null, signed, key, Buffer.from(signature, "base64")));
    if (!right) {
        throw new Refused("no signature is right");
    }
}

const CHECKS = {
    standard: [checkStandard, `standardwebhooks ${dependencies.standardwebhooks}`],
    hex: [checkHex, `stripe ${dependencies.stripe}`],
    ed25519: [checkEd25519, `crypto ${process.version}`],
};

let seen = 0;
let wrong = 0;
for (const line of readFileSync(0, "utf8").split("\n")) {
    if (line === "") {
        continue;
    }
    const { name, signature, expect, ...received } = JSON.parse(line);
    const [check, library] = CHECKS[signature];
    let verdict = "ok";
    let reason = "";
    try {
        check(received);
    } catch (error) {
        if (!(error instanceof Refused)) {
            throw error;
        }
        verdict = "refused";
        reason = ` (${error.message.split("\n")[0]})`;
    }
    const agrees = verdict === expect;
    seen += 1;
    wrong += agrees ? 0 : 1;
    const word = agrees ? "agrees" : "DISAGREES";
    console.log(`${library} of Node ${word}: ${name}: expected ${expect}, found ${verdict}${reason}`);
}
process.exitCode = wrong > 0 || seen === 0 ? 1 : 0;
