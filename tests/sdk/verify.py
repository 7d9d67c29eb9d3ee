"""Lets the official Python libraries check webhooks, as a receiver would.

Reads one JSON object a line: `name`, `signature` (`standard`, `hex` or `ed25519`), the `secret` or the
`publicKey` that the receiver has, `headers`, `body`, and `expect` (`ok` or `refused`). Prints a line
for each; ends with 1 if a library sees one differently, and if there was none to see.
"""

import base64
import json
import sys
import time
from importlib.metadata import version

import standardwebhooks
import stripe
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# As in the libraries, in seconds.
TOLERANCE = 300


class Refused(Exception):
    """What a receiver would not believe. Any other exception is a fault of ours."""


def check_standard(case):
    try:
        standardwebhooks.Webhook(case["secret"]).verify(case["body"].encode(), case["headers"])
    except standardwebhooks.WebhookVerificationError as error:
        raise Refused(error) from error


def check_hex(case):
    try:
        stripe.Webhook.construct_event(
            case["body"].encode(), case["headers"].get("ringback-signature"), case["secret"]
        )
    except stripe.SignatureVerificationError as error:
        raise Refused(error) from error


def check_ed25519(case):
    headers = case["headers"]
    sent = headers["webhook-timestamp"]
    if abs(time.time() - int(sent)) > TOLERANCE:
        raise Refused("the timestamp is too far off")
    key = Ed25519PublicKey.from_public_bytes(
        base64.b64decode(case["publicKey"].removeprefix("whpk_"), validate=True)
    )
    signed = f"{headers['webhook-id']}.{sent}.{case['body']}".encode()
    for entry in headers["webhook-signature"].split(" "):
        kind, signature = entry.split(",")
        if kind != "v1a":
            continue
        try:
            return key.verify(base64.b64decode(signature, validate=True), signed)
        except InvalidSignature:
            pass  # Another key's, perhaps.
    raise Refused("no signature is right")


CHECKS = {
    "standard": (check_standard, "standardwebhooks"),
    "hex": (check_hex, "stripe"),
    "ed25519": (check_ed25519, "cryptography"),
}


def main():
    seen, wrong = 0, 0
    for line in sys.stdin.buffer:
        case = json.loads(line)
        check, library = CHECKS[case["signature"]]
        try:
            check(case)
            verdict, reason = "ok", ""
        except Refused as refusal:
            verdict, reason = "refused", f" ({str(refusal).splitlines()[0]})"
        agrees = verdict == case["expect"]
        seen, wrong = seen + 1, wrong + (not agrees)
        word = "agrees" if agrees else "DISAGREES"
        print(
            f"{library} {version(library)} of Python {word}: {case['name']}:"
            f" expected {case['expect']}, found {verdict}{reason}"
        )
    return 1 if wrong or not seen else 0


sys.exit(main())
