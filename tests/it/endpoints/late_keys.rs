//! Deliveries whose keys change, or cannot be read, between their claim and their request.

use ringback::delivery::{Settings, Step};
use ringback::engine::{EndpointPatch, NewSecret};
use ringback::formats::Signature;

use super::{Endpoint, World, outcomes, seconds};
use crate::support::database::{Backend, Database, block_on, block_on_one_thread, on_both};
use crate::support::sdk::{Case, check};

/// Does this before anything that waits for a turn on a runtime whose only thread is this one.
fn before_all_others<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| block_on(work)).join().expect("no panic"))
}

impl World {
    /// Claims what is due. On a runtime of one thread it is sent when the test waits.
    async fn claim_one(&self) {
        self.event().await;
        self.node.dispatcher.look().await.unwrap();
        assert_eq!(self.node.dispatcher.step().await.unwrap(), Step::Claimed(1));
    }

    /// Chooses a kind of signature, and leaves no key that it does not need; the new key, if one
    /// was needed.
    async fn sign_only_by(&self, endpoint: &Endpoint, signature: Signature) -> Option<NewSecret> {
        let patch = EndpointPatch { signature: Some(signature), ..EndpointPatch::default() };
        let drawn = self.change(endpoint, patch).await?;
        let engine = &self.node.engine;
        for secret in engine.endpoint_secrets(&self.caller, endpoint.id).await.unwrap() {
            if secret.active && secret.id != drawn.id {
                let revoked = engine.revoke_endpoint_secret(&self.caller, endpoint.id, secret.id);
                revoked.await.expect("no delivery is signed with it");
            }
        }
        Some(drawn)
    }
}

on_both!(a_signature_that_changes_before_the_request_is_never_left_out);
fn a_signature_that_changes_before_the_request_is_never_left_out(database: Database) {
    use Signature::{Ed25519, Hex, Standard};
    let cases = block_on_one_thread(async {
        let mut world = World::start(&database).await;
        let endpoint = world.endpoint("/hook").await;
        let mut key = endpoint.key.shown.clone();
        let mut cases = Vec::new();
        for chosen in [Ed25519, Standard, Hex, Ed25519, Hex, Standard, Ed25519] {
            // Keys that are remembered from before would sign as they did.
            world.send_by(Settings::default()).await;
            world.claim_one().await;
            let drawn = before_all_others(world.sign_only_by(&endpoint, chosen));
            key = drawn.map_or(key, |drawn| drawn.shown);
            world.node.settle_deliveries().await;
            world.wait(seconds(6)).await;
            world.node.send().await;
            let log = world.receiver.log();
            assert_eq!(log.len(), cases.len() + 1, "one request each");
            let last = log.last().expect("a request");
            // Shared secrets sign in the standard way, whatever comes beside it.
            let kind = if chosen == Ed25519 { Ed25519 } else { Standard };
            let name = format!("request {} of a claim before {}", last.number, chosen.as_str());
            cases.push(Case::received(&name, kind, &key, last));
        }
        cases
    });
    check(&cases);
}

#[test]
fn a_database_that_is_away_while_keys_are_read_costs_no_try() {
    block_on(async {
        let database = Database::fresh(Backend::Postgres);
        let world = World::start(&database).await;
        let endpoint = world.endpoint("/hook").await;
        let held = database.hold("LOCK TABLE credentials IN ACCESS EXCLUSIVE MODE");
        world.claim_one().await;
        database.cut_off_whoever_waits();
        drop(held);
        world.node.settle_deliveries().await;
        let delivery = world.delivery(&endpoint).await;
        assert_eq!(outcomes(&delivery), [("delivered", Some(200))]);
        let log = world.receiver.log();
        log[0].verify(&endpoint.key.shown).expect("signed as ever");
    });
}
