//! What signs an endpoint's deliveries, as its owner and its receiver see it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Value, json};

use super::NONE;
use crate::api::{World, ids, list, problem, text};
use crate::support::database::{Database, on_both};
use crate::support::receiver::Received;

const OWN: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

impl World {
    #[track_caller]
    fn secrets(&self, id: &str) -> Vec<Value> {
        let answer = self.client.get(&format!("/v1/endpoints/{id}/secrets")).expect(200);
        list(&answer.json(), "secrets").clone()
    }

    /// Pings; the request that came.
    #[track_caller]
    fn pinged(&self, id: &str) -> Arc<Received> {
        let before = self.receiver.count();
        self.act(id, "ping", json!({})).expect(200);
        Arc::clone(&self.receiver.wait_for(before + 1, crate::api::PATIENCE)[before])
    }

    #[track_caller]
    fn revoke(&self, id: &str, secret: &str) -> crate::support::http::Answer {
        self.client.delete(&format!("/v1/endpoints/{id}/secrets/{secret}"))
    }
}

on_both!(secrets_change_hands_without_a_gap);
fn secrets_change_hands_without_a_gap(database: Database) {
    let world = World::start(database);
    let made = world.endpoint("/hook", json!({}));
    let (id, first) = (text(&made["id"]), text(&made["secret"]));
    let verifies = |request: &Received, secret: &str| request.verify(secret).is_ok();
    let ping = world.pinged(&id);
    assert!(verifies(&ping, &first) && !verifies(&ping, &world.application.signing_secret));

    // A second one beside it, which the receiver brings along.
    let answer = world.act(&id, "secrets", json!({"secret": OWN})).expect(201);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let added = answer.json();
    assert_eq!((&added["secret"], &added["kind"]), (&json!(OWN), &json!("hmac")));
    assert_eq!((&added["active"], &added["dateExpires"]), (&json!(true), &Value::Null));
    let ping = world.pinged(&id);
    assert!(verifies(&ping, &first) && verifies(&ping, OWN));

    // A rotation lets both go on for a while …
    let rotated = world.act(&id, "secrets/rotate", json!({"overlapSeconds": 3_600})).expect(201);
    let third = text(&rotated.json()["secret"]);
    let ping = world.pinged(&id);
    assert!([&first, OWN, &third].iter().all(|secret| verifies(&ping, secret)));
    let signatures = ping.header("webhook-signature").expect("signed").split(' ').count();
    assert_eq!(signatures, 3);
    let secrets = world.secrets(&id);
    assert_eq!(secrets.len(), 3);
    assert_eq!(secrets[0]["id"], rotated.json()["id"], "the newest first");
    let expire: Vec<bool> = secrets.iter().map(|one| one["dateExpires"].is_string()).collect();
    assert_eq!(expire, [false, true, true]);
    assert!(secrets.iter().all(|one| one["active"] == true && one.get("secret").is_none()));
    assert!(text(&secrets[1]["dateExpires"]) > text(&secrets[0]["dateCreated"]));

    // … and one without overlap does not.
    let body = json!({"overlapSeconds": 0});
    let fourth = world.act(&id, "secrets/rotate", body).expect(201).json();
    let ping = world.pinged(&id);
    assert!(verifies(&ping, &text(&fourth["secret"])));
    assert!([&first, OWN, &third].iter().all(|secret| !verifies(&ping, secret)));
    let active = |one: &Value| one["active"] == true;
    assert_eq!(world.secrets(&id).into_iter().filter(active).count(), 1);

    // Revoking ends one at once; the last one stays.
    let last = text(&fourth["id"]);
    problem(world.revoke(&id, &last), 409, "last_secret");
    let fifth = world.client.post_empty(&format!("/v1/endpoints/{id}/secrets")).expect(201).json();
    world.revoke(&id, &last).expect(204);
    let ping = world.pinged(&id);
    assert!(verifies(&ping, &text(&fifth["secret"])) && !verifies(&ping, &text(&fourth["secret"])));
    problem(world.revoke(&id, &last), 404, "not_found");
    problem(world.revoke(&id, NONE), 404, "not_found");
    let listed = world.client.get(&format!("/v1/endpoints/{id}/secrets")).text();
    assert!(!listed.contains("whsec_"), "{listed}");
    assert!(!world.server.stderr().contains("whsec_"));
}

on_both!(secrets_are_bounded_and_checked);
fn secrets_are_bounded_and_checked(database: Database) {
    let world = World::start(database);
    let id = world.endpoint_id("/hook", json!({}));
    for (body, code) in [
        (json!({"secret": "hunter2"}), "invalid_request"),
        (json!({"secret": "whsec_hunter2"}), "invalid_request"),
        (json!({"secret": "whsec_AAEC"}), "invalid_request"),
        (json!({"secret": 1}), "invalid_request"),
        (json!({"key": OWN}), "unknown_field"),
    ] {
        for action in ["secrets", "secrets/rotate"] {
            let refused = problem(world.act(&id, action, body.clone()), 400, code);
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
        }
    }
    for overlap in [json!(-1), json!(604_801), json!("1 h"), json!(0.5)] {
        let refused = world.act(&id, "secrets/rotate", json!({"overlapSeconds": overlap}));
        problem(refused, 400, "invalid_request");
    }
    problem(world.act(&id, "secrets", json!({"overlapSeconds": 1})), 400, "unknown_field");
    assert_eq!(world.secrets(&id).len(), 1);
    for _ in 0..9 {
        world.act(&id, "secrets", json!({})).expect(201);
    }
    let refused = problem(world.act(&id, "secrets", json!({})), 409, "secret_limit");
    assert!(text(&refused["detail"]).contains("10"), "{refused}");
    // No overlap is cut short; a rotation without one makes room by itself.
    problem(world.act(&id, "secrets/rotate", json!({})), 409, "secret_limit");
    world.act(&id, "secrets/rotate", json!({"overlapSeconds": 0})).expect(201);
    world.act(&id, "secrets", json!({})).expect(201);
    // A secret is one endpoint's.
    let other = world.endpoint_id("/other", json!({}));
    let secret = text(&world.secrets(&id)[0]["id"]);
    problem(world.revoke(&other, &secret), 404, "not_found");
}

/// Whether `webhook-signature` has a `v1a` that the key made.
fn signed_with(request: &Received, public_key: &str) -> bool {
    let key = STANDARD.decode(public_key.strip_prefix("whpk_").expect("a public key")).unwrap();
    let header = |name| request.header(name).expect("a header");
    let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp"));
    signed.push_str(std::str::from_utf8(&request.body).unwrap());
    let signatures = header("webhook-signature").split(' ');
    signatures.filter_map(|one| one.strip_prefix("v1a,")).any(|one| {
        let signature = STANDARD.decode(one).unwrap();
        UnparsedPublicKey::new(&ED25519, &key).verify(signed.as_bytes(), &signature).is_ok()
    })
}

on_both!(a_key_pair_signs_what_anybody_can_verify);
fn a_key_pair_signs_what_anybody_can_verify(database: Database) {
    let world = World::start(database);
    let made = world.endpoint("/hook", json!({"signature": "ed25519"}));
    assert!(made.get("secret").is_none(), "{made}");
    let (id, first) = (text(&made["id"]), text(&made["publicKey"]));
    let published = || world.client.get(&format!("/v1/endpoints/{id}/public-key"));
    let known = published().expect(200).json();
    assert_eq!((&known["publicKey"], list(&known, "keys").len()), (&made["publicKey"], 1));
    assert_eq!(known["keys"][0]["publicKey"], made["publicKey"]);
    let ping = world.pinged(&id);
    assert!(signed_with(&ping, &first));

    let rotated = world.act(&id, "secrets/rotate", json!({})).expect(201).json();
    assert_eq!((&rotated["kind"], rotated.get("secret")), (&json!("ed25519"), None));
    let second = text(&rotated["publicKey"]);
    let known = published().expect(200).json();
    assert_eq!(known["publicKey"], second.as_str());
    let keys: Vec<_> = list(&known, "keys").iter().map(|key| text(&key["publicKey"])).collect();
    assert_eq!(keys, [second.clone(), first.clone()]);
    assert!(known["keys"][1]["dateExpires"].is_string());
    let ping = world.pinged(&id);
    assert!(signed_with(&ping, &first) && signed_with(&ping, &second));
    let old = ids(&known, "keys").pop().expect("two keys");
    world.revoke(&id, &old).expect(204);
    assert!(!signed_with(&world.pinged(&id), &first));
    problem(world.revoke(&id, &text(&rotated["id"])), 409, "last_secret");
    problem(world.act(&id, "secrets", json!({"secret": OWN})), 400, "invalid_request");
}

on_both!(another_signature_brings_its_key);
fn another_signature_brings_its_key(database: Database) {
    let world = World::start(database);
    let made = world.endpoint("/hook", json!({}));
    let (id, secret) = (text(&made["id"]), text(&made["secret"]));
    let public = format!("/v1/endpoints/{id}/public-key");
    problem(world.client.get(&public), 409, "no_public_key");

    // A shared secret serves both kinds that need one.
    let hex = world.patch(&id, &json!({"signature": "hex"})).expect(200).json();
    assert!(hex.get("secret").is_none() && hex.get("publicKey").is_none(), "{hex}");
    let ping = world.pinged(&id);
    let signature = ping.header("ringback-signature").expect("a second signature");
    assert!(signature.starts_with("t=") && signature.contains(",v1="), "{signature}");
    ping.verify(&secret).expect("the standard one is beside it");

    let pair = world.patch(&id, &json!({"signature": "ed25519"})).expect(200).json();
    let key = text(&pair["publicKey"]);
    assert_eq!(world.client.get(&public).expect(200).json()["publicKey"], key.as_str());
    let ping = world.pinged(&id);
    assert!(signed_with(&ping, &key) && ping.header("ringback-signature").is_none());
    ping.verify(&secret).expect("the secret is still active, so that receivers can change over");
    let kinds: Vec<_> = world.secrets(&id).iter().map(|one| text(&one["kind"])).collect();
    assert_eq!(kinds, ["ed25519", "hmac"]);
    // It is shown once, and the way back needs no new secret.
    let again = world.patch(&id, &json!({"signature": "ed25519"})).expect(200).json();
    assert!(again.get("publicKey").is_none(), "{again}");
    let back = world.patch(&id, &json!({"signature": null})).expect(200).json();
    assert_eq!((&back["signature"], back.get("secret")), (&json!("standard"), None));
    world.pinged(&id).verify(&secret).expect("the first secret");
}
