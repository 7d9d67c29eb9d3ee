//! Endpoints with secrets wherever they may be given, on a server that is searched afterwards.
//!
//! They are managed beside the server, as on another node: what it sends shows that it knows them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::Binary;
use ringback::clock::Clock;
use ringback::egress::mask::mask_url_credentials;
use ringback::engine::{
    Address, Caller, DeliveryFilter, EndpointPatch, EndpointSettings, Engine, FeedFilter,
    NewEndpoint, NewSecret, Parts, Sealer, lookup_of,
};
use ringback::formats::{Formats, Signature, SigningSecret};
use ringback::handlers;
use ringback::store::{Access, Statement, Store};
use serde_json::json;
use uuid::Uuid;

use super::{Allowed, Ear, Markers, PATIENCE, echoing};
use crate::support::database::{Database, block_on};
use crate::support::process::{Application, data_dir};
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

/// What endpoints are managed with here.
pub(super) struct Beside<'a> {
    database: &'a Database,
    engine: Arc<Engine>,
    caller: Caller,
    receiver: &'a Receiver,
    endpoints: Vec<Uuid>,
}

#[derive(QueryableByName)]
struct Sealed {
    #[diesel(sql_type = Binary)]
    sealed: Vec<u8>,
}

fn sealer(database: &Database) -> Sealer {
    let key = fs::read_to_string(Path::new(&data_dir(database)).join("master.key")).expect("a key");
    let key: [u8; 32] = hex::decode(key.trim()).expect("hex").try_into().expect("32 bytes");
    Sealer::new(&key).expect("a sealer")
}

impl<'a> Beside<'a> {
    pub(super) fn start(
        database: &'a Database,
        application: &Application,
        receiver: &'a Receiver,
    ) -> Beside<'a> {
        let parts = Parts {
            store: Store::open(database.url(), Access::Beside).expect("the database opens"),
            clock: Clock::system(),
            catalog: handlers::catalog(&handlers::all()),
            formats: Formats::standard_only(),
            sealer: sealer(database),
            public_url: "http://ringback.test".to_owned(),
            disable_after: Duration::from_secs(3_600),
            lane_rate: None,
            observe_batch: Box::new(|_| {}),
        };
        let (engine, caller) = block_on(async {
            let engine = Engine::start(parts).await.expect("it starts beside the server");
            let caller = engine.authenticate(lookup_of(&application.api_key)).await.unwrap();
            (Arc::new(engine), caller.expect("the application"))
        });
        Beside { database, engine, caller, receiver, endpoints: Vec::new() }
    }

    /// Two that get every event: one verifies with a shared secret, one with a public key.
    pub(super) fn register(&mut self, markers: &mut Markers) {
        echoing(self.receiver, "/endpoint", &[500, 302, 200]);
        echoing(self.receiver, "/public", &[200]);
        let token = markers.plant("endpoint URL");
        let bearer = markers.plant("endpoint Authorization");
        let key = markers.plant("endpoint header");
        let headers = vec![
            ("authorization".to_owned(), format!("Bearer {bearer}")),
            ("x-key".to_owned(), key),
        ];
        for (path, signature) in [("/endpoint", Signature::Hex), ("/public", Signature::Ed25519)] {
            let url = self.receiver.url(&format!("{path}?plain=1&token={token}"));
            let settings = EndpointSettings {
                events: Some(vec!["*".to_owned()]),
                headers: headers.clone(),
                signature,
                ..EndpointSettings::default()
            };
            let new = NewEndpoint { address: address(url), settings, enabled: true };
            let made = block_on(self.engine.create_endpoint(&self.caller, new)).unwrap();
            markers.absent("the view of a new endpoint", &json_of(&made.endpoint));
            self.endpoints.push(made.endpoint.id);
            let names = ["the endpoint's secret", "the endpoint's secret's bytes"];
            guard(markers, names, made.key.expect("a key"));
        }
    }

    /// Everything that can be changed about secrets, with one job before and one after it.
    pub(super) fn change(&self, markers: &mut Markers, ear: &mut Ear) {
        let (engine, caller) = (&self.engine, &self.caller);
        let [shared, public] = self.endpoints[..] else { panic!("two endpoints") };
        self.job(ear);
        let given = SigningSecret::from_key(Uuid::new_v4().simple().to_string().as_bytes());
        let bearer = markers.plant("changed Authorization");
        let token = markers.plant("changed URL");
        let url = self.receiver.url(&format!("/moved?token={token}"));
        let headers = vec![
            ("authorization".to_owned(), Some(format!("Bearer {bearer}"))),
            ("x-key".to_owned(), None),
        ];
        block_on(async {
            let given = engine.add_endpoint_secret(caller, shared, given.ok(), None).await.unwrap();
            guard(markers, ["the caller's own secret", "the caller's own secret's bytes"], given);
            let drawn = engine.add_endpoint_secret(caller, shared, None, Some(600)).await.unwrap();
            let drawn_id = drawn.id;
            guard(markers, ["the rotated secret", "the rotated secret's bytes"], drawn);
            engine.add_endpoint_secret(caller, public, None, Some(600)).await.unwrap();
            let patch = EndpointPatch {
                address: Some(address(url)),
                headers: Some(Some(headers)),
                ..EndpointPatch::default()
            };
            let changed = engine.change_endpoint(caller, public, patch).await.unwrap();
            markers.absent("the view of a changed endpoint", &json_of(&changed.endpoint));
            // The others hear of it, with the endpoint as it is shown.
            engine.disable_endpoint(caller, shared).await.unwrap();
            let backlog = ringback::engine::Backlog::Resume;
            engine.enable_endpoint(caller, shared, backlog).await.unwrap();
            let last = engine.revoke_endpoint_secret(caller, public, drawn_id).await;
            markers.absent("a refusal", format!("{last:?}").as_bytes());
            engine.ping_endpoint(caller, shared, "request").await.unwrap();
        });
        self.job(ear);
        let arrived = || (!self.came_to("/moved").is_empty()).then_some(());
        eventually("the changed endpoint gets something", PATIENCE, arrived);
        // Private keys are shown to nobody, so they are looked up where they are sealed.
        let sql = "SELECT sealed FROM credentials WHERE kind = 'endpoint_key'";
        let rows = self.database.connect().load::<Sealed>(Statement::new(sql));
        let rows = rows.expect("SQL of ours");
        assert_eq!(rows.len(), 2);
        for (row, what) in rows.iter().zip(["a private key", "another private key"]) {
            let opened = sealer(self.database).open("signing key", &row.sealed).expect("a key");
            markers.guard(what, &opened);
        }
    }

    fn job(&self, ear: &mut Ear) {
        let before = self.receiver.count();
        let id = ear.submit(&json!({"type": "urn:job:noop", "specification": {}}));
        ear.get(&format!("/v1/jobs/{id}?wait=20"));
        eventually("its webhooks", PATIENCE, || (self.receiver.count() > before).then_some(()));
    }

    fn came_to(&self, path: &str) -> Vec<String> {
        let log = self.receiver.log();
        let mine = log.iter().filter(|one| one.path.split('?').next() == Some(path));
        mine.map(|one| super::head(one)).collect()
    }

    /// Which paths may be sent which, after it was seen that they were.
    pub(super) fn allow(&self, markers: &Markers, allowed: &mut Allowed) {
        let first = vec!["endpoint Authorization", "endpoint URL", "endpoint header"];
        let moved = vec!["changed Authorization", "changed URL"];
        for (path, secrets) in [("/endpoint", &first), ("/public", &first), ("/moved", &moved)] {
            let got = self.came_to(path);
            let got = got.first().unwrap_or_else(|| panic!("nothing came to {path}"));
            assert_eq!(markers.found_in(got.as_bytes()), *secrets, "{path}");
            allowed.insert(path, secrets.clone());
        }
    }

    /// All that is ever shown of endpoints and what they are owed.
    pub(super) fn read_everything(&self, markers: &Markers) {
        let (engine, caller) = (&self.engine, &self.caller);
        let seen = |what: &str, shown: &[u8]| {
            assert!(shown.len() > 2, "{what} is empty");
            markers.absent(what, shown);
        };
        block_on(async {
            let all = engine.list_endpoints(caller, (i64::MAX, i64::MAX), 10).await.unwrap().0;
            seen("the list of endpoints", &json_of(&all));
            assert!(json_text(&all).contains("token=***"), "{}", json_text(&all));
            for id in &self.endpoints {
                let secrets = engine.endpoint_secrets(caller, *id).await.unwrap();
                assert!(secrets.len() > 1);
                seen("secrets", &json_of(&secrets));
                seen("stats", &json_of(&engine.endpoint_stats(caller, *id).await.unwrap()));
            }
            let keys = engine.public_keys(caller, self.endpoints[1]).await.unwrap();
            seen("public keys", &json_of(&keys));
            let mut attempts = 0;
            for endpoint in &self.endpoints {
                let endpoint = Some(*endpoint);
                let filter = DeliveryFilter { endpoint, ..DeliveryFilter::default() };
                let page = engine
                    .list_deliveries(caller, &filter, (i64::MAX, i64::MAX), 100)
                    .await
                    .unwrap()
                    .0;
                for delivery in page {
                    let whole = engine.find_delivery(caller, delivery.id).await.unwrap();
                    attempts += whole.attempt_log.as_ref().map_or(0, Vec::len);
                    seen("a delivery", &json_of(&whole));
                }
            }
            assert!(attempts > 20, "{attempts} attempts, with what an echo said");
            while engine.relay().await.unwrap() {}
            let filter = FeedFilter::default();
            let page = engine.feed_page(caller.application, 0, &filter, 1_000).await.unwrap();
            let events: Vec<_> = page.events.iter().map(|one| json_text(&one.event)).collect();
            assert!(events.iter().any(|event| event.contains("endpoint.enabled")));
            seen("the feed", events.concat().as_bytes());
        });
    }
}

fn address(url: String) -> Address {
    let origin = url::Url::parse(&url).expect("a URL").origin().ascii_serialization();
    Address { shown_url: mask_url_credentials(&url), url, origin }
}

/// What is shown once, as text and as the bytes that sign; a public key is no secret.
fn guard(markers: &mut Markers, [whole, bytes]: [&'static str; 2], key: NewSecret) {
    let Some(raw) = key.shown.strip_prefix("whsec_") else { return };
    let raw = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, raw);
    markers.guard(whole, key.shown.as_bytes());
    markers.guard(bytes, &raw.expect("Base64"));
    markers.absent("what a developer prints", format!("{key:?}").as_bytes());
}

fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain values")
}

fn json_of(value: &impl serde::Serialize) -> Vec<u8> {
    json_text(value).into_bytes()
}
