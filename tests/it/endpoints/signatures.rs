//! Real deliveries, verified with the official libraries of receivers; keys that come and go.

use ringback::engine::{EndpointPatch, EngineError, NewSecret};
use ringback::formats::standard::HEX_HEADER;
use ringback::formats::{Signature, SigningSecret};
use uuid::Uuid;

use super::{Endpoint, World, seconds};
use crate::support::database::{Database, on_both};
use crate::support::sdk::{Case, check};

impl World {
    async fn signed(&self, path: &str, signature: Signature) -> Endpoint {
        self.endpoint_with(path, |settings| settings.signature = signature).await
    }

    /// One more event, and what came of it to a path, to be verified with each of these keys.
    async fn shown_to(&self, path: &str, signature: Signature, keys: &[(&str, bool)]) -> Vec<Case> {
        self.event().await;
        self.node.send().await;
        let log = self.receiver.log_of(path);
        let last = log.last().expect("it was delivered");
        let case = |(key, believed): &(&str, bool)| {
            let name = format!("request {} to {path} with {}", last.number, &key[..12]);
            let case = Case::received(&name, signature, key, last);
            if *believed { case } else { case.refused() }
        };
        keys.iter().map(case).collect()
    }
}

/// Where each kind is signed.
fn header_of(signature: Signature) -> &'static str {
    if signature == Signature::Hex { HEX_HEADER } else { "webhook-signature" }
}

on_both!(async the_official_libraries_believe_deliveries_of_every_kind);
async fn the_official_libraries_believe_deliveries_of_every_kind(database: Database) {
    let world = World::start(&database).await;
    let mut cases = Vec::new();
    for signature in Signature::ALL {
        let path = format!("/{}", signature.as_str());
        let (own, other) =
            (world.signed(&path, signature).await, world.signed("/other", signature).await);
        let keys = [(own.key.shown.as_str(), true), (other.key.shown.as_str(), false)];
        cases.extend(world.shown_to(&path, signature, &keys).await);
        let believed = cases[cases.len() - 2].clone();
        cases.push(believed.clone().with_body(|body| body.replace("job.created", "job.started")));
        let forge = |value: &str| value.replace(['A', 'a', '1'], "b");
        cases.push(believed.with_header(header_of(signature), forge));
        // A receiver that checks the standard signature is content with hex as well.
        if signature == Signature::Hex {
            let keys = [(own.key.shown.as_str(), true)];
            cases.extend(world.shown_to(&path, Signature::Standard, &keys).await);
        }
    }
    check(&cases);
}

on_both!(async both_keys_sign_until_the_overlap_is_over);
async fn both_keys_sign_until_the_overlap_is_over(database: Database) {
    let world = World::start(&database).await;
    let mut cases = Vec::new();
    for signature in Signature::ALL {
        let path = format!("/{}", signature.as_str());
        let endpoint = world.signed(&path, signature).await;
        let old = endpoint.key.shown.as_str();
        cases.extend(world.shown_to(&path, signature, &[(old, true)]).await);
        let engine = &world.node.engine;
        let rotated = engine.add_endpoint_secret(&world.caller, endpoint.id, None, Some(30)).await;
        let new = rotated.unwrap().shown;
        assert_ne!(new, old);
        cases.extend(world.shown_to(&path, signature, &[(old, true), (&new, true)]).await);
        world.node.clock.shift_millis(29_997);
        cases.extend(world.shown_to(&path, signature, &[(old, true), (&new, true)]).await);
        let secrets = engine.endpoint_secrets(&world.caller, endpoint.id).await.unwrap();
        let ends: Vec<_> =
            secrets.iter().map(|one| (one.active, one.date_expires.is_some())).collect();
        assert_eq!(ends, [(true, false), (true, true)], "the newest first");

        cases.extend(world.shown_to(&path, signature, &[(old, false), (&new, true)]).await);
        let secrets = engine.endpoint_secrets(&world.caller, endpoint.id).await.unwrap();
        assert_eq!(secrets.iter().map(|one| one.active).collect::<Vec<_>>(), [true, false]);
    }
    check(&cases);
}

on_both!(async a_revoked_key_signs_nothing_that_is_claimed_later);
async fn a_revoked_key_signs_nothing_that_is_claimed_later(database: Database) {
    let world = World::start(&database).await;
    let other = world.second_node(&database).await;
    let endpoint = world.endpoint("/hook").await;
    let given = SigningSecret::from_key(&[7; 32]).unwrap();
    let second =
        other.engine.add_endpoint_secret(&world.caller, endpoint.id, Some(given.clone()), None);
    let second = second.await.unwrap();
    assert_eq!(second.shown, given.text(), "the caller's own");
    let verified = async || {
        world.event().await;
        world.node.send().await;
        let log = world.receiver.log();
        let last = log.last().expect("it was delivered");
        [&endpoint.key, &second].map(|key| last.verify(&key.shown).is_ok())
    };
    assert_eq!(verified().await, [true, true], "now the sender remembers both");
    other.engine.revoke_endpoint_secret(&world.caller, endpoint.id, second.id).await.unwrap();
    assert_eq!(verified().await, [true, false]);
    let last = other.engine.revoke_endpoint_secret(&world.caller, endpoint.id, endpoint.key.id);
    assert!(matches!(last.await, Err(EngineError::LastSecret(_))));
    let again = other.engine.revoke_endpoint_secret(&world.caller, endpoint.id, second.id).await;
    assert!(matches!(again, Err(EngineError::NotFound { .. })), "it is gone");
    // Owed before the revocation, claimed after it.
    let third = other.engine.add_endpoint_secret(&world.caller, endpoint.id, None, None).await;
    let third = third.unwrap();
    world.event().await;
    other.engine.revoke_endpoint_secret(&world.caller, endpoint.id, endpoint.key.id).await.unwrap();
    world.node.send().await;
    let log = world.receiver.log();
    let last = log.last().unwrap();
    let signs = [&endpoint.key, &second, &third].map(|key| last.verify(&key.shown).is_ok());
    assert_eq!(signs, [false, false, true]);
    let signatures = last.header("webhook-signature").unwrap();
    assert_eq!(signatures.split(' ').count(), 1, "{signatures}");
}

impl World {
    /// Rotates; the new key.
    async fn rotate(&self, endpoint: &Endpoint, overlap: i64) -> Result<NewSecret, EngineError> {
        let engine = &self.node.engine;
        engine.add_endpoint_secret(&self.caller, endpoint.id, None, Some(overlap)).await
    }

    async fn revoke(&self, endpoint: &Endpoint, secret: Uuid) -> Result<(), EngineError> {
        self.node.engine.revoke_endpoint_secret(&self.caller, endpoint.id, secret).await
    }
}

on_both!(async a_key_that_will_expire_is_none_to_rely_on);
async fn a_key_that_will_expire_is_none_to_rely_on(database: Database) {
    let world = World::start(&database).await;
    for signature in Signature::ALL {
        let path = format!("/{}", signature.as_str());
        let endpoint = world.signed(&path, signature).await;
        let new = world.rotate(&endpoint, 24 * 60 * 60).await.unwrap();
        let refused = world.revoke(&endpoint, new.id).await;
        assert!(matches!(refused, Err(EngineError::LastSecret(id)) if id == new.id), "{refused:?}");
        world.revoke(&endpoint, endpoint.key.id).await.expect("the old one may go at once");
        let third = world.rotate(&endpoint, 24 * 60 * 60).await.unwrap();
        world.wait(seconds(24 * 60 * 60)).await;
        world.event().await;
        world.node.send().await;
        assert_eq!(world.statuses(&endpoint).await.pop(), Some("delivered"));
        let engine = &world.node.engine;
        let secrets = engine.endpoint_secrets(&world.caller, endpoint.id).await.unwrap();
        let active: Vec<Uuid> = secrets.iter().filter(|one| one.active).map(|one| one.id).collect();
        assert_eq!(active, [third.id]);
    }
}

on_both!(async a_signature_whose_keys_will_expire_brings_a_new_one);
async fn a_signature_whose_keys_will_expire_brings_a_new_one(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    let choose = async |signature| {
        let patch = EndpointPatch { signature: Some(signature), ..EndpointPatch::default() };
        world.change(&endpoint, patch).await
    };
    let rotated = world.rotate(&endpoint, 60).await.unwrap();
    assert!(choose(Signature::Ed25519).await.is_some());
    world.revoke(&endpoint, rotated.id).await.expect("no delivery is signed with it");
    let drawn = choose(Signature::Standard).await.expect("the one that is left will expire");
    world.wait(seconds(60)).await;
    world.event().await;
    world.node.send().await;
    let log = world.receiver.log();
    log.last().expect("it was delivered").verify(&drawn.shown).expect("signed with the new one");
    assert!(choose(Signature::Hex).await.is_none(), "that one lasts");
}

on_both!(async rotations_are_bounded_and_what_has_ended_is_forgotten);
async fn rotations_are_bounded_and_what_has_ended_is_forgotten(database: Database) {
    let world = World::start(&database).await;
    let endpoint = world.endpoint("/hook").await;
    for _ in 1..10 {
        world.rotate(&endpoint, 600).await.expect("ten may sign");
    }
    let refused = world.rotate(&endpoint, 600).await;
    assert!(matches!(refused, Err(EngineError::TooManySecrets(10))), "{refused:?}");
    world.event().await;
    world.node.send().await;
    let signatures = world.receiver.log()[0].header("webhook-signature").unwrap().to_owned();
    assert_eq!(signatures.split(' ').count(), 10);
    world.receiver.log()[0].verify(&endpoint.key.shown).expect("the first one's overlap holds");

    for _ in 0..30 {
        world.node.clock.shift_millis(1);
        world.rotate(&endpoint, 0).await.expect("nothing else signs after it");
    }
    let secrets = world.node.engine.endpoint_secrets(&world.caller, endpoint.id).await.unwrap();
    assert_eq!(secrets.iter().filter(|one| one.active).count(), 1);
    assert_eq!(
        secrets.len(),
        22,
        "the last twenty, the one that just ended, and the one that signs"
    );
}

on_both!(async the_last_use_of_a_key_is_noted);
async fn the_last_use_of_a_key_is_noted(database: Database) {
    let world = World::start(&database).await;
    let (used, idle) = (world.endpoint("/used").await, world.endpoint("/idle").await);
    world.node.engine.disable_endpoint(&world.caller, idle.id).await.unwrap();
    let last_use = async |endpoint: &Endpoint| {
        let secrets = world.node.engine.endpoint_secrets(&world.caller, endpoint.id).await.unwrap();
        secrets[0].date_last_used
    };
    assert_eq!(last_use(&used).await, None);
    world.event().await;
    world.node.send().await;
    world.node.dispatcher.flush_secret_uses().await.unwrap();
    let noted = last_use(&used).await.expect("it has signed");
    assert!(world.node.engine.now().millis_since(noted) < 60_000, "kept to the minute");
    assert_eq!(last_use(&idle).await, None);

    world.wait(seconds(180)).await;
    world.event().await;
    world.node.send().await;
    world.node.dispatcher.flush_secret_uses().await.unwrap();
    let later = last_use(&used).await.expect("it has signed");
    assert!(later.millis_since(noted) >= 120_000, "{later:?} after {noted:?}");
}
